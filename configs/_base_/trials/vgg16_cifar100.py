# VGG-16 on CIFAR-100, TJLS, Fig. 2 middle.
_base_ = [
    '../models/vgg16_cifar.py',
    '../data/cifar100.py',
    '../schedules/paper_classification.py',
    '../runtime_classification.py',
]

model = dict(head=dict(num_classes=100))
