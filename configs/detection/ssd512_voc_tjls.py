# TJLS on PASCAL VOC 07+12 with SSD512.
_base_ = ['../_base_/trials/ssd512_voc.py', '../_base_/methods/tjls_paper.py']

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
