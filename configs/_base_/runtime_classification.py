_base_ = 'mmpretrain::_base_/default_runtime.py'

# For mmpretrain's own tools: where mmcv and torchvision came without compiled parts.
custom_imports = dict(imports=['tjls_mm.compat'], allow_failed_imports=False)

default_hooks = dict(
    # A stage is iterations, so its evaluation is logged at an iteration.
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(_delete_=True, type='tjls_mm.StageCheckpointHook', interval_s=300),
)
custom_hooks = [
    dict(type='tjls_mm.AlternatingUpdateHook'),
    dict(type='tjls_mm.ContextBankHook'),
    dict(type='tjls_mm.PoolScoringHook'),
]
log_processor = dict(by_epoch=False)
# Task and sampler updates reach different parameters.
find_unused_parameters = True
randomness = dict(seed=0)
