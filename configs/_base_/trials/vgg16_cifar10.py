# VGG-16 on CIFAR-10, TJLS, Fig. 2 left.
_base_ = [
    '../models/vgg16_cifar.py',
    '../data/cifar10.py',
    '../schedules/paper_classification.py',
    '../runtime_classification.py',
]
