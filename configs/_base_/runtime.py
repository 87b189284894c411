_base_ = 'mmdet::_base_/default_runtime.py'

# Under mmdet's own tools mmdet.models is imported before any type of ours is built,
# and fails where mmcv came without compiled ops.
custom_imports = dict(imports=['tjls_mm.compat'], allow_failed_imports=False)

custom_hooks = [dict(type='NumClassCheckHook')]
randomness = dict(seed=0)
