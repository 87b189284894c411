data_source = dict(
    type='tjls_mm.BinaryImages',
    dataset='CIFAR10',
    data_root='data/cifar10',  # or download=True
)
# Images are decoded once and augmented in batches, where the model trains.
data_preprocessor = dict(
    type='tjls_mm.JointClsDataPreprocessor',
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False,  # decoded images are RGB, or grey
    augmentation=dict(type='tjls_mm.BatchCropFlip', crop_size=32, padding=4),
)
train_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(
        type='tjls_mm.JointDataset',
        labelled=dict(decode_once=True),
        pool=dict(decode_once=True),
    ),
)
val_dataloader = dict(
    batch_size=128,
    num_workers=0,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(decode_once=True),
)
test_dataloader = val_dataloader
score_dataloader = dict(
    batch_size=128,
    num_workers=0,
    dataset=dict(decode_once=True),
)
val_evaluator = dict(type='Accuracy', topk=(1,))
test_evaluator = val_evaluator
