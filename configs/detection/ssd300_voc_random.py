# The control: plain SSD300, picks at random.
_base_ = ['../_base_/trials/ssd300_voc.py', '../_base_/methods/random.py']
