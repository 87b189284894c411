# Small images for frozen features; a child names its data_source and crop_size, the
# side of its images. Flips only: an image has two sets of features, computed once.
_base_ = 'decoded.py'

data_preprocessor = dict(
    mean=[127, 127, 127],  # of package://efficientnet_lite0
    std=[128, 128, 128],
    augmentation=dict(padding=0),
)
