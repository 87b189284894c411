# Images of 32 x 32 pixels in class folders; a child may name other folders.
_base_ = 'decoded.py'

data_source = dict(
    type='tjls_mm.ImageFolders',
    data_root='data/images',
    pool_dirs=['train'],  # data/images/train/<class>/<image>
    test_dirs=['test'],
    classes=None,  # the names of the class folders
)
data_preprocessor = dict(
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    augmentation=dict(crop_size=32),
)
