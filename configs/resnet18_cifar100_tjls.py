# TJLS, the learner of paper, Tables 2 and 4.
_base_ = [
    '_base_/models/resnet18_cifar.py',
    '_base_/data/cifar100.py',
    '_base_/schedules/paper_classification.py',
    '_base_/runtime_classification.py',
]

model = dict(
    head=dict(
        num_classes=100,
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead', hidden_features=(512,), loss_weight=0.5
        ),
    ),
)
