# The control: plain classifier, picks at random, VGG-16 on CIFAR-10.
_base_ = ['../_base_/trials/vgg16_cifar10.py', '../_base_/methods/random.py']
