_base_ = 'decoded.py'

data_source = dict(
    type='tjls_mm.BinaryImages',
    dataset='FashionMNIST',
    data_root='data/fashion_mnist',  # or download=True
    channels=1,
)
data_preprocessor = dict(
    mean=[72.940],
    std=[90.021],
    augmentation=dict(crop_size=28),
)
