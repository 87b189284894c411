# VOC-format data for the small SSD at 160 px; a child names its data_source.
# Geometry and colour are drawn without looking at boxes: with mmdet's
# MinIoURandomCrop the discriminator would tell images by their crop.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='Expand',
        mean=[123.675, 116.28, 103.53],
        to_rgb=True,
        ratio_range=(1, 2),
        prob=0.5,
    ),
    dict(type='tjls_mm.BoxBlindRandomCrop', min_crop_size=0.6),
    dict(type='Resize', scale=(160, 160), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(160, 160), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

# No workers: decoding small images costs less than handing them over.
train_dataloader = dict(
    batch_size=8,  # labelled; what a method trains of the pool comes on top
    num_workers=0,
    dataset=dict(pipeline=train_pipeline),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline),
)
val_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='11points')
