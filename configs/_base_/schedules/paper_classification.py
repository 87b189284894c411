# TJLS, Sec. 4.1.
active_learning = dict(
    initial=0.10,
    budget=0.05,
    stages=7,
    annotator=dict(type='tjls_mm.Oracle'),
    query=dict(type='lowest'),  # Eq. 5
    joint=dict(
        composition='mixed',  # half labelled, half pool: Sec. 3, Fig. 1
        update='alternate',  # Sec. 3: "alternate the gradient ... for every batch"
        pool_ratio=1.0,  # pool images in training, as a multiple of the labelled ones
        redraw_pool=False,
    ),
)

# Epochs are passes of the task over the labelled images.
train_cfg = dict(type='tjls_mm.StageTrainLoop', max_epochs=200)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    dict(type='MultiStepLR', by_epoch=True, milestones=[160], gamma=0.1),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4),
    # The discriminator learns at the rate of the rest.
    paramwise_cfg=dict(custom_keys={'discriminator': dict(lr_mult=1.0)}),
)
# The total batch of the experiment: several processes share it. With enable=True
# each takes train_dataloader.batch_size and the learning rate is scaled.
auto_scale_lr = dict(enable=False, base_batch_size=128)
