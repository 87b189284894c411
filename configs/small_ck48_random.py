# The control: random selection, plain classifier, else small_ck48_tjls.py.
_base_ = 'small_ck48_tjls.py'

model = dict(head=dict(bottleneck=None, discriminator=None))
active_learning = dict(query=dict(type='random'))
# As many labelled images per update, and so as many updates, as in a batch of 128
# that is half pool.
train_dataloader = dict(batch_size=64)
auto_scale_lr = dict(base_batch_size=64)
