# WRN-28-10 on CIFAR-100.
_base_ = [
    '../models/wrn28_cifar.py',
    '../data/cifar100.py',
    '../schedules/paper_classification.py',
    '../runtime_classification.py',
]

active_learning = dict(initial=0.25, budget=0.05, stages=4)
