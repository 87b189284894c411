# A schedule of minutes, not the paper's: AdamW, one cycle, joint updates.
active_learning = dict(initial=60, budget=50, stages=4)

# Epochs are passes of the task over the labelled images.
train_cfg = dict(max_epochs=24)
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
auto_scale_lr = dict(enable=False, base_batch_size=8)
