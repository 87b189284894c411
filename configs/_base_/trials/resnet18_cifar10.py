# ResNet-18 on CIFAR-10.
_base_ = [
    '../models/resnet18_cifar.py',
    '../data/cifar10.py',
    '../schedules/paper_classification.py',
    '../runtime_classification.py',
]
