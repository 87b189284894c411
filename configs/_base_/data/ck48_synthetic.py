# Grey faces in real/<class>, synthetic/<class> and test/<class>, the test images of
# other subjects than the rest. CK+48 has 48 x 48 pixels; at 32 x 32 a training takes
# 0.4 of the time.
_base_ = 'decoded.py'

data_source = dict(
    type='tjls_mm.ImageFolders',
    data_root='data/ck48_synthetic',
    pool_dirs=['real', 'synthetic'],  # data/ck48_synthetic/real/<class>/<image>
    test_dirs=['test'],  # real images of other subjects
    classes=None,  # the names of the class folders
    channels=1,
)
data_preprocessor = dict(
    mean=[129.0],  # of the real images
    std=[71.3],
    augmentation=dict(crop_size=32, padding=3),
)
# Decoded images are resized once.
train_dataloader = dict(dataset=dict(scale=(32, 32)))
val_dataloader = dict(dataset=dict(scale=(32, 32)))
