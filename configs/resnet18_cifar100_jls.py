# JLS, otherwise as resnet18_cifar100_tjls.py.
_base_ = 'resnet18_cifar100_tjls.py'

model = dict(head=dict(bottleneck=None))
