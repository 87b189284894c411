_base_ = 'decoded.py'

data_source = dict(
    type='tjls_mm.BinaryImages',
    dataset='CIFAR100',
    data_root='data/cifar100',  # or download=True
)
data_preprocessor = dict(
    mean=[129.304, 124.070, 112.434],
    std=[68.170, 65.392, 70.418],
    augmentation=dict(crop_size=32),
)
