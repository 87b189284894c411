# The control: plain classifier, picks at random, ResNet-18 on FashionMNIST.
_base_ = ['../_base_/trials/resnet18_fashionmnist.py', '../_base_/methods/random.py']
