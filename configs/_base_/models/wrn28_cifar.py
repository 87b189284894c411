# WRN-28-10 with dropout (Zagoruyko and Komodakis, 2016), for 32 x 32 images.
model = dict(
    type='ImageClassifier',
    backbone=dict(type='tjls_mm.WideResNet', depth=28, widen_factor=10, dropout=0.3),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=100, in_channels=640),
)
