# JLS, otherwise as vgg16_cifar100_tjls.py.
_base_ = 'vgg16_cifar100_tjls.py'

model = dict(head=dict(bottleneck=None))
