_base_ = 'mmpretrain::_base_/default_runtime.py'

# For mmpretrain's own tools: where mmcv and torchvision came without compiled parts.
custom_imports = dict(imports=['tjls_mm.compat'], allow_failed_imports=False)

randomness = dict(seed=0)
