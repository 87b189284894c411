# JLS, otherwise as small_ck48_tjls.py.
_base_ = 'small_ck48_tjls.py'

model = dict(head=dict(bottleneck=None))
