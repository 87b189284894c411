# JLS, otherwise as vgg16_cifar10_tjls.py.
_base_ = 'vgg16_cifar10_tjls.py'

model = dict(head=dict(bottleneck=None))
