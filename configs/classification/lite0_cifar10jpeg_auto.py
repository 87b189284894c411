# Linear on pretrained features, picks by the default for classifiers, a fifth of CIFAR-10.
_base_ = ['../_base_/trials/lite0_cifar10jpeg.py', '../_base_/methods/auto.py']
