# The control: plain SSD, picks at random on the demo data set.
_base_ = ['../_base_/trials/demo.py', '../_base_/methods/random.py']
