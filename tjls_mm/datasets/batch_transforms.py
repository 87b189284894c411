"""Augmentation of whole batches on the device that trains."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.utils import to_2tuple
from torch import Tensor

from tjls_mm.randomness import uniform_numbers
from tjls_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class BatchCropFlip:
    """Pad, crop at random and flip at random, for images of one size.

    The distribution is that of mmpretrain's ``RandomCrop(crop_size, padding)`` and
    mmcv's ``RandomFlip(prob=flip_prob)``. An image's own seed decides, whatever the
    batch.

    Args:
        crop_size: Side of the crop in pixels, or (height, width).
        padding: Pixels added to every side.
        flip_prob: Probability of a horizontal flip.
        pad_val: Value of the added pixels, in [0, 255].
    """

    def __init__(
        self,
        crop_size: int | Sequence[int],
        padding: int = 0,
        flip_prob: float = 0.5,
        pad_val: float = 0,
    ) -> None:
        self.crop_size = tuple(to_2tuple(crop_size))
        self.padding = padding
        self.flip_prob = flip_prob
        self.pad_val = pad_val

    def draw(self, seeds: Sequence[int], size: Sequence[int]) -> tuple[Tensor, ...]:
        """Draw what happens to images of a padded size (height, width), by their seeds.

        Returns:
            Top and left of the window in the padded image, (B,), int64, and whether
            it is flipped, (B,), bool. A window larger than it is a ValueError.
        """
        height, width = self.crop_size
        free = size[0] - height + 1, size[1] - width + 1
        if min(free) < 1:
            raise ValueError(
                f'A crop of {self.crop_size} does not fit into padded images of '
                f'{tuple(size)} pixels: set crop_size or padding of the augmentation.'
            )
        numbers = torch.from_numpy(uniform_numbers(seeds, 3))
        top, left = ((numbers[:, i] * free[i]).long() for i in range(2))
        return top, left, numbers[:, 2] < self.flip_prob

    def __call__(self, images: Tensor, seeds: Sequence[int]) -> Tensor:
        """Images, (B, C, H, W), as (B, C, *crop_size) of the same device and type."""
        if self.padding:
            images = F.pad(images, [self.padding] * 4, value=self.pad_val)
        top, left, flip = self.draw(seeds, images.shape[-2:])
        height, width = self.crop_size
        columns = torch.arange(width).expand(len(images), width)
        columns = torch.where(flip[:, None], width - 1 - columns, columns)
        device = images.device
        rows = (top[:, None] + torch.arange(height)).to(device)  # (B, h)
        columns = (left[:, None] + columns).to(device)  # (B, w)
        index = torch.arange(len(images), device=device)
        # Indices on both sides of the channels put these last.
        cropped = images[index[:, None, None], :, rows[:, :, None], columns[:, None]]
        return cropped.permute(0, 3, 1, 2)
