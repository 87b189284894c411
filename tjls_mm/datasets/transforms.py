"""Training transforms that do not look at boxes."""

import os

import numpy as np
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.datasets.transforms import Resize
from mmdet.structures.bbox import autocast_box_type

from tjls_mm.bounded_cache import BoundedCache
from tjls_mm.registry import TRANSFORMS

_IMAGES = BoundedCache()
"""Of this process: the next stage of a trial finds the images of the last one."""


@TRANSFORMS.register_module()
class LoadResized(Resize):
    """LoadImageFromFile and mmdet's Resize in one, with the result remembered.

    It stands where Resize does, after LoadAnnotations. For small images and
    ``num_workers=0``, where decoding files takes longer than training.

    Args:
        cached_images: How many images the process remembers, the last ones used;
            224 x 224 pixels take 0.15 MB. A file that changes is read again.
        backend_args: Of LoadImageFromFile; the file must have a local path.
        **kwargs: Of Resize, ``scale`` among them.

    Required keys: img_path, gt_bboxes (optional).
    Added keys: those of both transforms.
    """

    def __init__(self, cached_images: int, backend_args=None, **kwargs) -> None:
        super().__init__(**kwargs)
        self.cached_images = cached_images
        self.load = LoadImageFromFile(backend_args=backend_args)

    def _resize_img(self, results: dict) -> None:
        path = results['img_path']
        key = (path, os.stat(path).st_mtime_ns, super().__repr__())
        found = _IMAGES.fetch(key, lambda: self._load(path), self.cached_images)
        results.update(found, img=found['img'].copy())

    def _load(self, path: str) -> dict:
        results = self.load({'img_path': path, 'scale': self.scale})
        super()._resize_img(results)
        return results


@TRANSFORMS.register_module()
class BoxBlindRandomCrop(BaseTransform):
    """Random crop whose window is drawn without looking at boxes.

    By the windows of mmdet's MinIoURandomCrop, which fit the ground truth, a
    discriminator could tell labelled images. Boxes whose centre lies outside the
    window are dropped, the others clipped; an image may end up without any.

    Args:
        min_crop_size: Smallest side of the window, as a fraction of the image's.
        max_aspect_ratio: Width to height of the window, relative to the image,
            is in [1 / this, this].
        prob: Probability of cropping.

    Required keys: img, gt_bboxes and gt_bboxes_labels, gt_ignore_flags (optional).
    Modified keys: the same and img_shape.
    Source: the sampling of SSD (Liu et al., 2016), without its overlap condition.
    """

    def __init__(
        self,
        min_crop_size: float = 0.3,
        max_aspect_ratio: float = 2.0,
        prob: float = 0.8,
    ) -> None:
        self.min_crop_size = min_crop_size
        self.max_aspect_ratio = max_aspect_ratio
        self.prob = prob

    @autocast_box_type()
    def transform(self, results: dict) -> dict:
        if np.random.rand() >= self.prob:
            return results
        height, width = results['img'].shape[:2]
        while True:
            w, h = np.random.uniform(self.min_crop_size, 1, size=2)
            if 1 / self.max_aspect_ratio <= w / h <= self.max_aspect_ratio:
                break
        w, h = max(1, round(w * width)), max(1, round(h * height))
        left = np.random.randint(width - w + 1)
        top = np.random.randint(height - h + 1)
        results['img'] = results['img'][top : top + h, left : left + w]
        results['img_shape'] = results['img'].shape[:2]
        boxes = results.get('gt_bboxes')
        if boxes is None:
            return results
        centres = boxes.centers.numpy()
        inside = ((centres >= [left, top]) & (centres < [left + w, top + h])).all(1)
        boxes = boxes[inside]
        boxes.translate_([-left, -top])
        boxes.clip_([h, w])
        results['gt_bboxes'] = boxes
        for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
            if key in results:
                results[key] = results[key][inside]
        return results

    def __repr__(self) -> str:
        settings = ', '.join(f'{name}={value}' for name, value in vars(self).items())
        return f'{type(self).__name__}({settings})'
