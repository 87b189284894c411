# RaFD and what a StarGAN made of it: colour images, square crops around the face, in
# class folders of the same names. Who prepares the folders has to split real/ and
# test/ by subject, the second number in RaFD's file names, and to train and feed
# StarGAN with real/ alone: a face that is in both is recognised, not its expression.
_base_ = 'decoded.py'

data_source = dict(
    type='tjls_mm.ImageFolders',
    data_root='data/rafd',
    pool_dirs=['real', 'synthetic'],  # data/rafd/real/<expression>/<image>
    test_dirs=['test'],  # real images of held-out subjects
    classes=None,  # the names of the class folders
)
data_preprocessor = dict(
    # About half of the range and a quarter; RaFD was not measured.
    mean=[127.5, 127.5, 127.5],
    std=[63.75, 63.75, 63.75],
    augmentation=dict(crop_size=64, padding=8),
)
# Decoded images are resized once.
train_dataloader = dict(dataset=dict(scale=(64, 64)))
val_dataloader = dict(dataset=dict(scale=(64, 64)))
