"""Training transforms that do not look at boxes."""

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.structures.bbox import autocast_box_type

from tjls_mm.registry import TRANSFORMS


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
