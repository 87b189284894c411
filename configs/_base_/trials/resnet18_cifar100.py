# ResNet-18 on CIFAR-100.
_base_ = [
    '../models/resnet18_cifar.py',
    '../data/cifar100.py',
    '../schedules/paper_classification.py',
    '../runtime_classification.py',
]

model = dict(head=dict(num_classes=100))
