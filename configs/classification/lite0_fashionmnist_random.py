# The control: linear on pretrained features, picks at random, a sixth of FashionMNIST.
_base_ = ['../_base_/trials/lite0_fashionmnist.py', '../_base_/methods/random.py']
