# JLS, otherwise as small_fashionmnist_tjls.py.
_base_ = 'small_fashionmnist_tjls.py'

model = dict(head=dict(bottleneck=None))
