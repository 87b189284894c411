_base_ = 'decoded.py'

data_source = dict(
    type='tjls_mm.BinaryImages',
    dataset='CIFAR10',
    data_root='data/cifar10',  # or download=True
)
data_preprocessor = dict(
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    augmentation=dict(crop_size=32),
)
