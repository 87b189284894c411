# The ceiling: plain SSD on all 2,000 labels, one stage.
_base_ = 'ssd_r18_vocmini_random.py'

active_learning = dict(initial=1.0, stages=1)
