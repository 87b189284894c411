# FashionMNIST, a learner and schedule for two CPU cores.
_base_ = [
    '../models/resnet18_small.py',
    '../data/fashionmnist.py',
    '../schedules/short_classification.py',
    '../runtime_classification.py',
]

active_learning = dict(initial=300, budget=300, stages=4, console='summary')
data_preprocessor = dict(channels_last=True)  # faster on a CPU
model = dict(backbone=dict(in_channels=1))
