# The default on the demo data set: plain SSD, picks that balance the classes of boxes.
_base_ = ['../_base_/trials/demo.py', '../_base_/methods/auto.py']
