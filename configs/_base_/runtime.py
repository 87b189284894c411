_base_ = 'mmdet::_base_/default_runtime.py'

# Under mmdet's own tools mmdet.models is imported before any type of ours is built,
# and fails where mmcv came without compiled ops.
custom_imports = dict(imports=['tjls_mm.compat'], allow_failed_imports=False)

default_hooks = dict(
    # A stage is iterations, so its evaluation is logged at an iteration.
    logger=dict(log_metric_by_epoch=False),
    checkpoint=dict(_delete_=True, type='tjls_mm.StageCheckpointHook', interval_s=300),
)
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='tjls_mm.AlternatingUpdateHook'),
    dict(type='tjls_mm.ContextBankHook'),
    dict(type='tjls_mm.PoolScoringHook'),
]
log_processor = dict(by_epoch=False)
# Task and sampler updates reach different parameters.
find_unused_parameters = True
randomness = dict(seed=0)
