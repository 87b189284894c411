# A schedule of minutes, not the paper's: one cycle of SGD, joint updates.
active_learning = dict(
    initial=300,
    budget=300,
    stages=4,
    annotator=dict(type='tjls_mm.Oracle'),
    query=dict(type='lowest'),  # Eq. 5
    joint=dict(
        composition='mixed',  # half labelled, half pool: Sec. 3, Fig. 1
        update='joint',
        pool_ratio=1.0,  # pool images in training, as a multiple of the labelled ones
        redraw_pool=False,
    ),
)

# Epochs are passes of the task over the labelled images.
train_cfg = dict(type='tjls_mm.StageTrainLoop', max_epochs=25)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    # eta_max and total_steps belong to the rate and the epochs above and below.
    dict(
        type='OneCycleLR',
        by_epoch=True,
        eta_max=0.1,
        total_steps=25,
        pct_start=0.3,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4),
)
auto_scale_lr = dict(enable=False, base_batch_size=128)
