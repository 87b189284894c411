# The control: random selection, plain classifier, else wrn28_cifar100_tjls.py.
_base_ = 'wrn28_cifar100_tjls.py'

model = dict(head=dict(bottleneck=None, discriminator=None))
active_learning = dict(query=dict(type='random'))
