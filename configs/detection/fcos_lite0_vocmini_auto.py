# A detector on pretrained features, picks by the default for detectors.
_base_ = ['../_base_/trials/fcos_lite0_vocmini.py', '../_base_/methods/auto.py']
