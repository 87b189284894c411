# JLS, otherwise as resnet18_fashionmnist_tjls.py.
_base_ = 'resnet18_fashionmnist_tjls.py'

model = dict(head=dict(bottleneck=None))
