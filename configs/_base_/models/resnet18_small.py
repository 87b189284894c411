# A ResNet-18 of a quarter of the width that halves the size in every stage, for two
# CPU cores: 0.7 million parameters.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='ResNet_CIFAR',
        depth=18,
        base_channels=16,
        strides=(2, 2, 2, 2),
        out_indices=(3,),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='tjls_mm.JointClsHead', num_classes=10, in_channels=128),
)
