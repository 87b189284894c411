# TJLS on the demo data set: minutes on two CPU cores, with a schedule of its own.
_base_ = [
    '_base_/models/ssd_r18_160.py',
    '_base_/data/voc_160.py',
    '_base_/schedules/short_160.py',
    '_base_/runtime.py',
]

data_source = dict(
    type='tjls_mm.VOCFiles',
    data_root='data/demo',
    pool_sets=['VOCdemo/trainval'],
    test_sets=['VOCdemo/test'],
    classes=('ball', 'crate', 'cone', 'star', 'ring'),
)
active_learning = dict(console='summary')
model = dict(
    bbox_head=dict(
        type='tjls_mm.JointSSDHead',
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
        discriminator=dict(type='tjls_mm.DiscriminatorHead', loss_weight=0.5),
    ),
)
