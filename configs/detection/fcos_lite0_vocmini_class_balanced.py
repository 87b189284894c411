# A detector on pretrained features, picks that balance the classes of its boxes.
_base_ = [
    '../_base_/trials/fcos_lite0_vocmini.py',
    '../_base_/methods/class_balanced.py',
]
