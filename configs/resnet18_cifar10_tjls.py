# TJLS, the learner of paper, Fig. 3.
_base_ = [
    '_base_/models/resnet18_cifar.py',
    '_base_/data/cifar10.py',
    '_base_/schedules/paper_classification.py',
    '_base_/runtime_classification.py',
]

model = dict(
    head=dict(
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead', hidden_features=(512,), loss_weight=0.5
        ),
    ),
)
