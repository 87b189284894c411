# A schedule of minutes, not the paper's: AdamW, one cycle, joint updates.
active_learning = dict(
    initial=60,
    budget=50,
    stages=4,
    annotator=dict(type='tjls_mm.Oracle'),
    query=dict(type='lowest'),  # TJLS, Eq. 5
    joint=dict(composition='mixed', update='joint', pool_ratio=1.0),
)

# Epochs are passes of the task over the labelled images.
train_cfg = dict(type='tjls_mm.StageTrainLoop', max_epochs=24)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
param_scheduler = [
    # eta_max and total_steps belong to the rate and the epochs above and below.
    dict(
        type='OneCycleLR',
        by_epoch=True,
        eta_max=8e-3,
        total_steps=24,
        pct_start=0.3,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=8e-3, weight_decay=0.05),
    clip_grad=dict(max_norm=10),
)
auto_scale_lr = dict(enable=False, base_batch_size=16)
