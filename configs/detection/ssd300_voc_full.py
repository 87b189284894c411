# The ceiling: plain SSD300 on all labels, one stage.
_base_ = ['../_base_/trials/ssd300_voc.py', '../_base_/methods/random.py']

active_learning = dict(initial=1.0, stages=1)
