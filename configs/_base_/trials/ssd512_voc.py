# SSD512 on PASCAL VOC 07+12.
_base_ = [
    '../models/ssd512_voc.py',
    '../data/voc0712_512.py',
    '../schedules/paper_detection.py',
    '../runtime.py',
]
