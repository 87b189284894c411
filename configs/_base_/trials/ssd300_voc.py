# SSD300 on PASCAL VOC 07+12, on the schedule of TJLS, Sec. 4.2.
_base_ = [
    '../models/ssd300_voc.py',
    '../data/voc0712_300.py',
    '../schedules/paper_detection.py',
    '../runtime.py',
]
