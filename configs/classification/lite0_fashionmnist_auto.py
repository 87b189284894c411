# The default for classifiers: linear on pretrained features, a sixth of FashionMNIST.
_base_ = ['../_base_/trials/lite0_fashionmnist.py', '../_base_/methods/auto.py']
