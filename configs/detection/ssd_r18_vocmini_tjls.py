# TJLS with a small SSD on 2,500 images of VOC2007.
_base_ = ['../_base_/trials/ssd_r18_vocmini.py', '../_base_/methods/tjls_paper.py']
