# The control: plain classifier, picks at random, CIFAR-10 as JPEG files.
_base_ = ['../_base_/trials/small_cifar10jpeg.py', '../_base_/methods/random.py']
