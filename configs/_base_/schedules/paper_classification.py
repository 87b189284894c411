# TJLS, Sec. 4.1.
active_learning = dict(initial=0.10, budget=0.05, stages=7)

# Epochs are passes of the task over the labelled images.
train_cfg = dict(max_epochs=200)
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[160], gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4),
)
# Labelled images of an update of the experiment: several processes share them. With
# enable=True each takes train_dataloader.batch_size and the learning rate is scaled.
auto_scale_lr = dict(enable=False, base_batch_size=64)
