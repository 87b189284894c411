# JLS on 2,500 images of VOC2007.
_base_ = ['../_base_/trials/ssd300_vocmini.py', '../_base_/methods/jls_paper.py']

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
