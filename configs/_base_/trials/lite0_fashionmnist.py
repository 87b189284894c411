# A linear classifier on pretrained features, a sixth of FashionMNIST: a stage takes
# seconds on one CPU core.
_base_ = [
    '../models/lite0_classifier_128.py',
    '../data/small_frozen.py',
    '../schedules/frozen_classification.py',
    '../runtime_classification.py',
]

data_source = dict(
    type='tjls_mm.BinaryImages',
    dataset='FashionMNIST',
    data_root='data/fashion_mnist',  # or download=True
    channels=3,  # three equal ones
    max_pool=10_000,  # of 60,000
    max_test=2_000,  # of 10,000
)
active_learning = dict(console='summary')
data_preprocessor = dict(augmentation=dict(crop_size=28))
