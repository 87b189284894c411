# The ceiling: plain SSD300 on all labels, one stage.
_base_ = 'ssd300_voc_random.py'

active_learning = dict(initial=1.0, stages=1)
