# VOC-format data at 224 px for frozen features; a child names its data_source. Flips
# only: an image has two sets of features, which are computed once.
train_pipeline = [
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='tjls_mm.LoadResized', scale=(224, 224), cached_images=2500),
    dict(type='RandomFlip', prob=0.5),
    dict(type='PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(224, 224), keep_ratio=False),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor'),
    ),
]

# No workers: what an image becomes is remembered in the process that trains.
train_dataloader = dict(
    batch_size=16,  # labelled; what a method trains of the pool comes on top
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
val_evaluator = dict(type='VOCMetric', metric='mAP', eval_mode='area')
