# TJLS on FashionMNIST, a learner and schedule for two CPU cores.
_base_ = [
    '_base_/models/resnet18_small.py',
    '_base_/data/fashionmnist.py',
    '_base_/schedules/short_classification.py',
    '_base_/runtime_classification.py',
]

active_learning = dict(initial=300, budget=300, stages=4, console='summary')
data_preprocessor = dict(channels_last=True)  # faster on a CPU
model = dict(
    backbone=dict(in_channels=1),
    head=dict(
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead', hidden_features=(512,), loss_weight=0.5
        ),
    ),
)
