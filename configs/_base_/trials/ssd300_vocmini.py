# SSD300 on 2,500 images of VOC2007 at a small size, for one GPU, AMP on.
_base_ = 'ssd300_voc.py'

data_source = dict(
    data_root='data/voc_mini',
    pool_sets=['VOC2007/trainval'],  # 2,000 images
    test_sets=['VOC2007/test'],  # 500 images
)
active_learning = dict(initial=200, budget=200, stages=4)
# Its own schedule: 60 of the paper's 300 epochs.
train_cfg = dict(max_epochs=60)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[48], gamma=0.1),
]
optim_wrapper = dict(type='AmpOptimWrapper')
