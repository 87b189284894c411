# Linear on pretrained features, picks by the default for classifiers, a sixth of FashionMNIST.
_base_ = ['../_base_/trials/lite0_fashionmnist.py', '../_base_/methods/auto.py']
