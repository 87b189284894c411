# JLS for classifiers with a graph convolution over the images of a batch.
_base_ = 'jls_classifier.py'

method = dict(bottleneck=dict(type='tjls_mm.BatchGCN'))
