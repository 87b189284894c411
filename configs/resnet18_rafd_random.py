# The control: random selection, plain classifier, else resnet18_rafd_tjls.py.
_base_ = 'resnet18_rafd_tjls.py'

model = dict(head=dict(bottleneck=None, discriminator=None))
active_learning = dict(query=dict(type='random'))
