# Your own data set in VOC format: data, classes, budget, schedule and learner, each
# changed in the OpenMMLab way. The control is one changed line: methods/random.py.
_base_ = [
    '../_base_/trials/ssd300_voc.py',
    '../_base_/methods/tjls_paper.py',
]

data_source = dict(
    data_root='data/helmets',
    pool_sets=['train'],  # data/helmets/ImageSets/Main/train.txt
    test_sets=['val'],
    classes=('helmet', 'head'),
)
active_learning = dict(initial=200, budget=100, stages=6)
method = dict(bottleneck=dict(heads=2, hidden=256))

# Passes over the labelled images.
train_cfg = dict(max_epochs=120)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[96], gamma=0.1),
]
optim_wrapper = dict(type='AmpOptimWrapper', optimizer=dict(lr=5e-4))
model = dict(bbox_head=dict(num_classes=2))
