# JLS, otherwise as resnet18_rafd_tjls.py.
_base_ = 'resnet18_rafd_tjls.py'

model = dict(head=dict(bottleneck=None))
