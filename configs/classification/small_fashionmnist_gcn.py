# JLS with a graph convolution on FashionMNIST, for two CPU cores.
_base_ = [
    '../_base_/trials/small_fashionmnist.py',
    '../_base_/methods/gcn_classifier.py',
]
