# Linear on pretrained features, smallest margin first, long-tailed CIFAR-10.
_base_ = ['../_base_/trials/lite0_cifar10longtail.py', '../_base_/methods/margin.py']
