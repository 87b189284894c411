# The control: plain SSD, random selection, otherwise as demo_tjls.py.
_base_ = 'demo_tjls.py'

model = dict(bbox_head=dict(bottleneck=None, discriminator=None))
active_learning = dict(query=dict(type='random'))
