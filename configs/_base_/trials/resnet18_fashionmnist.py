# ResNet-18 on FashionMNIST, TJLS, Fig. 2 right.
_base_ = [
    '../models/resnet18_cifar.py',
    '../data/fashionmnist.py',
    '../schedules/paper_classification.py',
    '../runtime_classification.py',
]

model = dict(backbone=dict(in_channels=1))
