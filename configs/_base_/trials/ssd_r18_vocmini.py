# A small SSD for two CPU cores on 2,500 images of VOC2007 at a small size.
_base_ = [
    '../models/ssd_r18_160.py',
    '../data/voc_160.py',
    '../schedules/short_160.py',
    '../runtime.py',
]

data_source = dict(
    type='tjls_mm.VOCFiles',
    data_root='data/voc_mini',
    pool_sets=['VOC2007/trainval'],  # 2,000 images
    test_sets=['VOC2007/test'],  # 500 images
    classes=None,  # the 20 of VOC
)
active_learning = dict(initial=300, budget=300, stages=3, console='summary')
train_cfg = dict(max_epochs=14)
param_scheduler = [
    dict(
        type='OneCycleLR',
        by_epoch=True,
        eta_max=8e-3,
        total_steps=14,
        pct_start=0.3,
    ),
]
model = dict(
    bbox_head=dict(
        num_classes=20,
        # Objects of VOC are larger than those of the demo.
        anchor_generator=dict(
            min_sizes=[20, 42, 76, 110],
            max_sizes=[42, 76, 110, 145],
        ),
    ),
)
