# TJLS, paper, Table 1: 25 to 40 % of the labels.
_base_ = [
    '_base_/models/wrn28_cifar.py',
    '_base_/data/cifar100.py',
    '_base_/schedules/paper_classification.py',
    '_base_/runtime_classification.py',
]

active_learning = dict(initial=0.25, budget=0.05, stages=4)
model = dict(
    head=dict(
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead', hidden_features=(512,), loss_weight=0.5
        ),
    ),
)
