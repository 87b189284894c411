# TJLS on PASCAL VOC 07+12 with SSD300: the experiment of the paper, Sec. 4.2.
_base_ = [
    '_base_/models/ssd300_voc.py',
    '_base_/data/voc0712_300.py',
    '_base_/schedules/paper_detection.py',
    '_base_/runtime.py',
]

model = dict(
    bbox_head=dict(
        bottleneck=dict(
            type='tjls_mm.BatchTransformer',
            tokens='images',
            depth=1,
            heads=1,
            hidden=128,
        ),
        discriminator=dict(
            type='tjls_mm.DiscriminatorHead',
            loss_weight=0.5,  # TJLS, Sec. 4.1: 50 % of the task loss
        ),
    ),
)
