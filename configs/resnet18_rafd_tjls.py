# TJLS on synthetic faces for RaFD, paper, Sec. 4.3: the start is all real images, and
# every stage adds synthetic ones, whose labels are free. The paper gives no learner,
# schedule, budget or number of stages for it: learner and schedule are those of
# Sec. 4.1, budget and stages are our choice.
_base_ = [
    '_base_/models/resnet18_cifar.py',
    '_base_/data/rafd_synthetic.py',
    '_base_/schedules/paper_classification.py',
    '_base_/runtime_classification.py',
]

active_learning = dict(
    initial='real/',  # all images whose ids begin so
    budget=500,
    stages=5,
)
model = dict(
    head=dict(
        num_classes=8,
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead', hidden_features=(512,), loss_weight=0.5
        ),
    ),
)
