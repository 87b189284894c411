# A detector of mmdet's with your data: its config, the data, the budgets, a method.
_base_ = ['mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', '../_base_/methods/random.py']

data_source = dict(
    type='tjls_mm.CocoFiles',  # or tjls_mm.VOCFiles
    data_root='data/helmets',
    pool_files=['pool.json'],
    test_files=['test.json'],
    image_dirs='images',
)
active_learning = dict(initial=200, budget=100, stages=5)
train_cfg = dict(max_epochs=100)  # passes over the labelled images, in every stage
train_dataloader = dict(batch_size=8)
