"""Data sets, image sources, batch samplers and transforms."""

from importlib.util import find_spec

from tjls_mm import compat  # noqa: F401  mmdet needs its stand-ins

from .batch_transforms import BatchCropFlip
from .folder_images import FolderClsImages, FolderImages
from .image_source import ImageSource
from .joint_batch_sampler import JointBatchSampler
from .joint_dataset import JointDataset
from .load_square import LoadSquare

__all__ = ['BatchCropFlip', 'ImageSource', 'JointBatchSampler', 'JointDataset']
__all__ += ['FolderClsImages', 'FolderImages', 'LoadSquare']

if find_spec('mmdet') is not None:
    from .coco import CocoFiles
    from .det_image_set import DetImageSet
    from .detection_source import DetectionSource, Instance
    from .transforms import BoxBlindRandomCrop
    from .voc import VOCFiles

    __all__ += ['BoxBlindRandomCrop', 'CocoFiles', 'DetImageSet', 'DetectionSource']
    __all__ += ['Instance', 'VOCFiles']

if find_spec('mmpretrain') is not None:
    from .binary_images import BinaryImages
    from .cls_image_set import ClsImageSet
    from .image_files import ImageFolders, ImageLists

    __all__ += ['BinaryImages', 'ClsImageSet', 'ImageFolders', 'ImageLists']
