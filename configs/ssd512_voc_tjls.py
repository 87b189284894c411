# TJLS on PASCAL VOC 07+12 with SSD512.
_base_ = [
    '_base_/models/ssd512_voc.py',
    '_base_/data/voc0712_512.py',
    '_base_/schedules/paper_detection.py',
    '_base_/runtime.py',
]

model = dict(
    bbox_head=dict(
        bottleneck=dict(type='tjls_mm.BatchTransformer', tokens='images'),
        discriminator=dict(type='tjls_mm.DiscriminatorHead', loss_weight=0.5),
    ),
)
