# The demo data set and a small SSD: minutes on two CPU cores, a schedule of its own.
_base_ = [
    '../models/ssd_r18_160.py',
    '../data/voc_160.py',
    '../schedules/short_160.py',
    '../runtime.py',
]

data_source = dict(
    type='tjls_mm.VOCFiles',
    data_root='data/demo',
    pool_sets=['VOCdemo/trainval'],
    test_sets=['VOCdemo/test'],
    classes=('ball', 'crate', 'cone', 'star', 'ring'),
)
active_learning = dict(console='summary')
