# JLS: joint learning without the transformer.
_base_ = 'ssd300_voc_tjls.py'

model = dict(bbox_head=dict(bottleneck=None))
