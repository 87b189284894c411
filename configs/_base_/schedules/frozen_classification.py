# A linear classifier on frozen features: updates, not epochs, so that no stage takes
# longer than the one before.
active_learning = dict(initial=100, budget=100, stages=5)
train_cfg = dict(max_iters=300)
param_scheduler = [
    dict(
        type='OneCycleLR',
        by_epoch=False,
        eta_max=1e-3,
        total_steps=300,
        pct_start=0.3,
    ),
]
optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=1e-3, weight_decay=0.05),
)
auto_scale_lr = dict(enable=False, base_batch_size=64)
