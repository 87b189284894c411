# The default for classifiers: linear on pretrained features, a fifth of CIFAR-10.
_base_ = ['../_base_/trials/lite0_cifar10jpeg.py', '../_base_/methods/auto.py']
