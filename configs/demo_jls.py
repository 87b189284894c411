# JLS on the demo data set, otherwise as demo_tjls.py.
_base_ = 'demo_tjls.py'

model = dict(bbox_head=dict(bottleneck=None))
