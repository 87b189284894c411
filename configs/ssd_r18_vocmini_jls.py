# JLS, otherwise as ssd_r18_vocmini_tjls.py.
_base_ = 'ssd_r18_vocmini_tjls.py'

model = dict(bbox_head=dict(bottleneck=None))
