# VGG-16 for 32 x 32 images: no batch norm, one linear layer on 512 features.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='VGG', depth=16, num_classes=-1),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=512),
)
