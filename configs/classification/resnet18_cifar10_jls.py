# JLS, ResNet-18 on CIFAR-10.
_base_ = ['../_base_/trials/resnet18_cifar10.py', '../_base_/methods/jls_classifier.py']

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
