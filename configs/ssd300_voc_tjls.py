# TJLS on PASCAL VOC 07+12 with SSD300: the experiment of the paper, Sec. 4.2.
_base_ = ['_base_/trials/ssd300_voc.py', '_base_/methods/tjls_paper.py']

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
