# The default for classifiers: linear on pretrained features, long-tailed CIFAR-10.
_base_ = ['../_base_/trials/lite0_cifar10longtail.py', '../_base_/methods/auto.py']
