# TJLS, paper, Fig. 2 right. The images are grey.
_base_ = [
    '_base_/models/resnet18_cifar.py',
    '_base_/data/fashionmnist.py',
    '_base_/schedules/paper_classification.py',
    '_base_/runtime_classification.py',
]

model = dict(
    backbone=dict(in_channels=1),
    head=dict(
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead', hidden_features=(512,), loss_weight=0.5
        ),
    ),
)
