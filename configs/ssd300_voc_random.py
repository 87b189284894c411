# The control: plain SSD300, random selection, no discriminator.
_base_ = 'ssd300_voc_tjls.py'

model = dict(bbox_head=dict(bottleneck=None, discriminator=None))
active_learning = dict(query=dict(type='random'))
