# JLS, otherwise as resnet18_cifar10_tjls.py.
_base_ = 'resnet18_cifar10_tjls.py'

model = dict(head=dict(bottleneck=None))
