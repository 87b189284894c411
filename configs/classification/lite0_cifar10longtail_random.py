# The control: linear on pretrained features, picks at random, long-tailed CIFAR-10.
_base_ = ['../_base_/trials/lite0_cifar10longtail.py', '../_base_/methods/random.py']
