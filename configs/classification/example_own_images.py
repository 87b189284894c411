# TJLS on your own photos in class folders: copy, rename, adapt what is on top.
_base_ = [
    'mmpretrain::_base_/models/resnet18.py',
    '../_base_/data/image_folders_224.py',
    '../_base_/schedules/paper_classification.py',
    '../_base_/runtime_classification.py',
    '../_base_/methods/tjls_classifier.py',  # the control: methods/random.py
]

data_source = dict(
    type='tjls_mm.ImageFolders',  # or ImageLists: files of "path label" lines
    data_root='data/my_images',
    pool_dirs=['train'],  # data/my_images/train/<class>/<image>
    test_dirs=['val'],
    classes=None,  # the names of the class folders; or a list of them, in your order
)
active_learning = dict(
    initial=200,  # images; or 0.1, or 'labelled_already.txt', or 'real/'
    budget=100,
    stages=6,
)
train_cfg = dict(max_epochs=100)  # passes over the labelled images
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[80], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=32)
model = dict(
    backbone=dict(
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet18'),
    ),
    head=dict(num_classes=5, topk=(1,)),
)
