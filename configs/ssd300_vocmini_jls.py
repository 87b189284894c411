# JLS, otherwise as ssd300_vocmini_tjls.py.
_base_ = 'ssd300_vocmini_tjls.py'

model = dict(bbox_head=dict(bottleneck=None))
