# JLS, ResNet-18 on synthetic faces for RaFD.
_base_ = ['../_base_/trials/resnet18_rafd.py', '../_base_/methods/jls_classifier.py']

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
