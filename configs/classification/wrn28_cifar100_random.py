# The control: plain classifier, picks at random, WRN-28-10 on CIFAR-100.
_base_ = ['../_base_/trials/wrn28_cifar100.py', '../_base_/methods/random.py']
