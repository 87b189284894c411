# JLS, otherwise as small_cifar10jpeg_tjls.py.
_base_ = 'small_cifar10jpeg_tjls.py'

model = dict(head=dict(bottleneck=None))
