# CIFAR-10 as JPEG files, a learner and schedule for two CPU cores.
_base_ = [
    '../models/resnet18_small.py',
    '../data/image_folders_32.py',
    '../schedules/short_classification.py',
    '../runtime_classification.py',
]

data_source = dict(
    data_root='data/cifar10_jpeg',
    pool_dirs=['train'],  # 50,000 images
    test_dirs=['test'],  # 10,000 images
)
active_learning = dict(initial=300, budget=300, stages=4, console='summary')
data_preprocessor = dict(channels_last=True)  # faster on a CPU
