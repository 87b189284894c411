# JLS, WRN-28-10 on CIFAR-100.
_base_ = ['../_base_/trials/wrn28_cifar100.py', '../_base_/methods/jls_classifier.py']

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
