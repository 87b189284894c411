# The control: plain classifier, picks at random, ResNet-18 on CIFAR-100.
_base_ = ['../_base_/trials/resnet18_cifar100.py', '../_base_/methods/random.py']
