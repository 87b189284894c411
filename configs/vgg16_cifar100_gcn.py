# JLS with a graph convolutional bottleneck, otherwise as vgg16_cifar100_tjls.py.
_base_ = 'vgg16_cifar100_tjls.py'

model = dict(head=dict(bottleneck=dict(_delete_=True, type='tjls_mm.BatchGCN')))
