# The transformer of Eq. 1 and 2 to the letter: tokens are channels, the embedding
# axis is the batch. For the record; see the README for why it is not the default.
_base_ = 'ssd300_voc_tjls.py'

model = dict(bbox_head=dict(bottleneck=dict(tokens='channels')))
