# The control: plain SSD, random selection, otherwise as ssd_r18_vocmini_tjls.py.
_base_ = 'ssd_r18_vocmini_tjls.py'

model = dict(bbox_head=dict(bottleneck=None, discriminator=None))
active_learning = dict(query=dict(type='random'))
# As many labelled images per update, and so as many updates, as in a batch of 16
# that is half pool.
train_dataloader = dict(batch_size=8)
auto_scale_lr = dict(base_batch_size=8)
