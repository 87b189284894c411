"""Data preprocessor of batches in which some images have no label."""

import torch
from mmpretrain.models.utils import ClsDataPreprocessor
from torch import Tensor

from tjls_mm.registry import MODELS, TRANSFORMS


@MODELS.register_module()
class JointClsDataPreprocessor(ClsDataPreprocessor):
    """ClsDataPreprocessor for labelled and pool images in one batch.

    mmpretrain's looks at the first sample to see whether the batch has labels.

    Args:
        augmentation: Config of a batched transform of training images on the device,
            e.g. ``dict(type='tjls_mm.BatchCropFlip', crop_size=32, padding=4)``, or
            None. Needs ``tjls_mm.ClsImageSet(decode_once=True)``.
        channels_last: Lay images out as (B, H, W, C) in memory, which convolutions
            keep to: faster on CPUs, and on GPUs with mixed precision.
        **kwargs: Of mmpretrain's ClsDataPreprocessor.
    """

    def __init__(
        self,
        *args,
        augmentation: dict | None = None,
        channels_last: bool = False,
        **kwargs,
    ) -> None:
        super().__init__(*args, **kwargs)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.memory_format = layout
        self.augmentation = augmentation and TRANSFORMS.build(augmentation)

    def forward(self, data: dict, training: bool = False) -> dict:
        """Stack, augment (in training), normalise images (C, H, W) in [0, 255].

        An augmentation needs ``data['seeds']``, one integer per image.

        Raises:
            ValueError: If ``batch_augments`` (Mixup) meet an image without a label, an
                augmentation one without seed, or sizes differ outside training.
        """
        inputs = data['inputs']
        if not isinstance(inputs, Tensor) and len({x.shape for x in inputs}) == 1:
            inputs = torch.stack(list(inputs))
        one_size = isinstance(inputs, Tensor)
        if training and self.augmentation is not None:
            if 'seeds' not in data or not one_size:
                raise ValueError(
                    'data_preprocessor.augmentation needs images of one size with seeds'
                    ': set decode_once=True of the data set, or augmentation=None.'
                )
            inputs = self.augmentation(self.cast_data(inputs), data['seeds'])
        if not training and not one_size:
            sizes = sorted({tuple(x.shape[-2:]) for x in inputs})
            raise ValueError(
                f'Images of {sizes[0]} and {sizes[-1]} pixels in one batch: padding '
                'would change predictions. End the test pipeline with CenterCrop.'
            )
        samples = data.get('data_samples')
        known = [s for s in samples or () if 'gt_label' in s]
        if training and self.batch_augments is not None and len(known) < len(samples):
            raise ValueError(
                'model.train_cfg.augments mix the labels of all images of a batch: '
                'pool images have none. Remove them, or the discriminator.'
            )
        batch = {'inputs': inputs, 'data_samples': known or None}
        images = super().forward(batch, training)['inputs']
        images = images.contiguous(memory_format=self.memory_format)
        return {'inputs': images, 'data_samples': samples}
