# Small images: decoded once and augmented in batches, where the model trains. A child
# names its data_source, mean, std and crop_size.
data_preprocessor = dict(
    type='tjls_mm.JointClsDataPreprocessor',
    to_rgb=False,  # decoded images are RGB, or grey
    augmentation=dict(type='tjls_mm.BatchCropFlip', padding=4),
)
train_dataloader = dict(
    batch_size=64,  # labelled; what a method trains of the pool comes on top
    num_workers=0,
    persistent_workers=False,
    dataset=dict(decode_once=True),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    persistent_workers=False,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(decode_once=True),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
