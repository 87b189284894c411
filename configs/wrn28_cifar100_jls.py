# JLS, otherwise as wrn28_cifar100_tjls.py.
_base_ = 'wrn28_cifar100_tjls.py'

model = dict(head=dict(bottleneck=None))
