# A linear classifier on pretrained features, a fifth of CIFAR-10 as JPEG files: a stage
# takes seconds on one CPU core.
_base_ = [
    '../models/lite0_classifier_128.py',
    '../data/small_frozen.py',
    '../schedules/frozen_classification.py',
    '../runtime_classification.py',
]

data_source = dict(
    type='tjls_mm.ImageFolders',
    data_root='data/cifar10_jpeg',
    pool_dirs=['train'],
    test_dirs=['test'],
    classes=None,  # the names of the class folders
    max_pool=10_000,  # of 50,000: 1,000 of each class
    max_test=2_000,  # of 10,000
)
active_learning = dict(console='summary')
data_preprocessor = dict(augmentation=dict(crop_size=32))
