# The control: a detector on pretrained features, picks at random from VOC2007.
_base_ = ['../_base_/trials/fcos_lite0_vocmini.py', '../_base_/methods/random.py']
