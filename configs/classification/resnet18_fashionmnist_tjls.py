# TJLS, ResNet-18 on FashionMNIST.
_base_ = [
    '../_base_/trials/resnet18_fashionmnist.py',
    '../_base_/methods/tjls_classifier.py',
]

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
