_base_ = 'mmdet::_base_/models/ssd300.py'

model = dict(
    bbox_head=dict(
        num_classes=20,
        # of SSD300 on VOC (Liu et al., 2016); the base has those of COCO
        anchor_generator=dict(basesize_ratio_range=(0.2, 0.9)),
    ),
)
