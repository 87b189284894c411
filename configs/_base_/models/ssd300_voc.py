_base_ = 'mmdet::_base_/models/ssd300.py'

model = dict(bbox_head=dict(type='tjls_mm.JointSSDHead', num_classes=20))
