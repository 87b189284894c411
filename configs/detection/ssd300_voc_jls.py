# JLS: joint learning without the transformer.
_base_ = ['../_base_/trials/ssd300_voc.py', '../_base_/methods/jls_paper.py']

method = dict(
    update='alternate'
)  # Sec. 3: "alternate the gradient ... for every batch"
