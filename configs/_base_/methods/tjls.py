# TJLS for any detector of mmdet: JLS with a transformer over the images of a batch. It
# starts as the identity, and what it adds grows slowly.
_base_ = 'jls.py'

method = dict(
    bottleneck=dict(
        type='tjls_mm.BatchTransformer',
        tokens='images',
        depth=1,
        heads=1,
        hidden=32,
        zero_init=True,
        update_scale=0.1,
    ),
)
