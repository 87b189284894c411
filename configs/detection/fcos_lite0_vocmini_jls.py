# JLS with a detector on pretrained features, on 2,500 images of VOC2007.
_base_ = ['../_base_/trials/fcos_lite0_vocmini.py', '../_base_/methods/jls.py']
