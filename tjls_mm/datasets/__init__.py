"""Data sets, image sources, batch samplers and transforms."""

from importlib.util import find_spec

from tjls_mm import compat  # noqa: F401  mmdet needs its stand-ins

from .batch_transforms import BatchCropFlip
from .joint_batch_sampler import JointBatchSampler
from .joint_dataset import JointDataset
from .pool_dataset import PoolDataset

__all__ = ['BatchCropFlip', 'JointBatchSampler', 'JointDataset', 'PoolDataset']

if find_spec('mmdet') is not None:
    from .transforms import BoxBlindRandomCrop
    from .voc import VOCFiles, VOCImageSet

    __all__ += ['BoxBlindRandomCrop', 'VOCFiles', 'VOCImageSet']

if find_spec('mmpretrain') is not None:
    from .binary_images import BinaryImages
    from .cls_image_set import ClsImageSet
    from .image_files import ImageFolders, ImageLists

    __all__ += ['BinaryImages', 'ClsImageSet', 'ImageFolders', 'ImageLists']
