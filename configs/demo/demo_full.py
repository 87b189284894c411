# The ceiling: plain SSD on all 400 labels, one stage.
_base_ = ['../_base_/trials/demo.py', '../_base_/methods/random.py']

active_learning = dict(initial=1.0, stages=1)
