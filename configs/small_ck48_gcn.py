# JLS with a graph convolutional bottleneck, otherwise as small_ck48_tjls.py.
_base_ = 'small_ck48_tjls.py'

model = dict(head=dict(bottleneck=dict(_delete_=True, type='tjls_mm.BatchGCN')))
