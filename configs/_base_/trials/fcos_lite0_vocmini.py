# A detector on pretrained features, 2,500 images of VOC2007: a stage takes minutes on
# one CPU core.
_base_ = [
    '../models/fcos_lite0_224.py',
    '../data/voc_224.py',
    '../runtime.py',
]

data_source = dict(
    type='tjls_mm.VOCFiles',
    data_root='data/voc_mini',
    pool_sets=['VOC2007/trainval'],  # 2,000 images
    test_sets=['VOC2007/test'],  # 500 images
    classes=None,  # the 20 of VOC
)
active_learning = dict(initial=250, budget=250, stages=4, console='summary')
# Updates, not epochs: no stage takes longer than the one before.
train_cfg = dict(max_iters=450)
param_scheduler = [
    dict(
        type='OneCycleLR',
        by_epoch=False,
        eta_max=4e-3,
        total_steps=450,
        pct_start=0.3,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=4e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
