# JLS with a graph convolution on CIFAR-10 as JPEG files, for two CPU cores.
_base_ = [
    '../_base_/trials/small_cifar10jpeg.py',
    '../_base_/methods/gcn_classifier.py',
]
