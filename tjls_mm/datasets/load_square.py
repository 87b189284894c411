"""Loading images for a pretrained backbone."""

import mmcv
import numpy as np
import torch
from mmcv.transforms import BaseTransform

from tjls_mm.datasets.cls_source import spread_channels
from tjls_mm.errors import InputError
from tjls_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadSquare(BaseTransform):
    """A whole pipeline: load an image, resize it to a square, and pack it alone.

    Args:
        size: Pixels of a side.

    Required keys: ``img_path``, or ``img``, RGB or grey, (H, W, 3 or 1).
    Returns: ``inputs``, RGB, (3, size, size), uint8.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def transform(self, results: dict) -> dict:
        image = results.get('img')
        if image is None:
            path = results['img_path']
            image = mmcv.imread(path, 'color', channel_order='rgb')
            if image is None:
                raise InputError(f'{path} is no image that OpenCV decodes.')
        image = spread_channels(image, 3)
        # Bilinear interpolation skips pixels where it shrinks.
        how = 'area' if max(image.shape[:2]) > self.size else 'bilinear'
        image = mmcv.imresize(image, (self.size, self.size), interpolation=how)
        return {
            'inputs': torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        }
