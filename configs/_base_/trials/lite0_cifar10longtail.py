# A linear classifier on pretrained features, long-tailed CIFAR-10: 12,406 images, 5,000
# airplanes to 50 trucks; test images are balanced. The list files come from
#     python tools/make_long_tail.py data/cifar10_jpeg --imbalance 100
_base_ = [
    '../models/lite0_classifier_128.py',
    '../data/small_frozen.py',
    '../schedules/frozen_classification.py',
    '../runtime_classification.py',
]

data_source = dict(
    type='tjls_mm.ImageLists',
    data_root='data/cifar10_jpeg',
    pool_files=['long_tail_100_pool.txt'],
    test_files=['long_tail_100_test.txt'],
    classes=[
        'airplane',
        'automobile',
        'bird',
        'cat',
        'deer',
        'dog',
        'frog',
        'horse',
        'ship',
        'truck',
    ],
    max_test=2_000,  # of 10,000
)
active_learning = dict(console='summary')
data_preprocessor = dict(augmentation=dict(crop_size=32))
