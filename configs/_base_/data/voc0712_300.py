data_source = dict(
    type='tjls_mm.VOCFiles',
    data_root='data/VOCdevkit',
    pool_sets=['VOC2007/trainval', 'VOC2012/trainval'],  # 16,551 images
    test_sets=['VOC2007/test'],
    classes=None,  # the 20 of VOC
)

# Geometry and colour are drawn without looking at boxes: with mmdet's
# MinIoURandomCrop the discriminator would tell images by their crop.
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='Expand',
        mean=[123.675, 116.28, 103.53],
        to_rgb=True,
        ratio_range=(1, 4),
    ),
    dict(type='tjls_mm.BoxBlindRandomCrop', min_crop_size=0.3),
    dict(type='Resize', scale=(300, 300), keep_ratio=False),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PhotoMetricDistortion'),
    dict(type='PackDetInputs'),
]
# The same without annotations: a pool image has none.
pool_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadEmptyAnnotations', with_bbox=True),
    *train_pipeline[2:],
]
score_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(300, 300), keep_ratio=False),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]
test_pipeline = [
    *score_pipeline[:2],
    dict(type='LoadAnnotations', with_bbox=True),
    *score_pipeline[2:],
]

train_dataloader = dict(
    batch_size=32,
    num_workers=4,
    persistent_workers=False,
    dataset=dict(
        type='tjls_mm.JointDataset',
        labelled=dict(pipeline=train_pipeline),
        pool=dict(pipeline=pool_pipeline),
    ),
)
val_dataloader = dict(
    batch_size=32,
    num_workers=4,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(pipeline=test_pipeline),
)
test_dataloader = val_dataloader
score_dataloader = dict(
    batch_size=32,
    num_workers=4,
    dataset=dict(pipeline=score_pipeline),
)
val_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='11points')
test_evaluator = val_evaluator
