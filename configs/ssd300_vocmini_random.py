# The control: plain SSD300, random selection, otherwise as ssd300_vocmini_tjls.py.
_base_ = 'ssd300_vocmini_tjls.py'

model = dict(bbox_head=dict(bottleneck=None, discriminator=None))
active_learning = dict(query=dict(type='random'))
