# The ceiling: plain SSD on all 400 labels, one stage.
_base_ = 'demo_random.py'

active_learning = dict(initial=1.0, stages=1)
