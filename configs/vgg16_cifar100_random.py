# The control: random selection, plain classifier, else vgg16_cifar100_tjls.py.
_base_ = 'vgg16_cifar100_tjls.py'

model = dict(head=dict(bottleneck=None, discriminator=None))
active_learning = dict(query=dict(type='random'))
