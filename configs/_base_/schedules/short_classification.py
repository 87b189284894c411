# A schedule of minutes, not the paper's: one cycle of SGD, joint updates.
active_learning = dict(initial=300, budget=300, stages=4)

# Epochs are passes of the task over the labelled images.
train_cfg = dict(max_epochs=25)
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
auto_scale_lr = dict(enable=False, base_batch_size=64)
