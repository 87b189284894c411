# TJLS for classifiers: JLS with a transformer over the images of a batch.
_base_ = 'jls_classifier.py'

method = dict(
    bottleneck=dict(
        type='tjls_mm.BatchTransformer',
        tokens='images',
        depth=1,
        heads=1,
        hidden=128,
    ),
)
