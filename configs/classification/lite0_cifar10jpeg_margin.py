# Linear on pretrained features, smallest margin first, a fifth of CIFAR-10.
_base_ = ['../_base_/trials/lite0_cifar10jpeg.py', '../_base_/methods/margin.py']
