# Linear on pretrained features, smallest margin first, a sixth of FashionMNIST.
_base_ = ['../_base_/trials/lite0_fashionmnist.py', '../_base_/methods/margin.py']
