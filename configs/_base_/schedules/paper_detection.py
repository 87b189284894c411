# TJLS, Sec. 4.2, after Learning Loss for active learning (Yoo and Kweon, 2019).
active_learning = dict(initial=1000, budget=1000, stages=10)

# Epochs are passes of the task over the labelled images.
train_cfg = dict(max_epochs=300)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[240], gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=1e-3, momentum=0.9, weight_decay=5e-4),
)
# Labelled images of an update of the experiment: several processes share them. With
# enable=True each takes train_dataloader.batch_size and the learning rate is scaled.
auto_scale_lr = dict(enable=False, base_batch_size=16)
