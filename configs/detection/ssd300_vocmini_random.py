# The control: plain SSD300, picks at random on 2,500 images of VOC2007.
_base_ = ['../_base_/trials/ssd300_vocmini.py', '../_base_/methods/random.py']
