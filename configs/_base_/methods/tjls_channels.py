# The transformer of TJLS, Eq. 1 and 2, to the letter: tokens are channels, the
# embedding axis is the batch. For the record.
_base_ = 'tjls_paper.py'

method = dict(bottleneck=dict(tokens='channels'))
