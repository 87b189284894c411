# TJLS, VGG-16 on CIFAR-100.
_base_ = ['../_base_/trials/vgg16_cifar100.py', '../_base_/methods/tjls_classifier.py']

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
