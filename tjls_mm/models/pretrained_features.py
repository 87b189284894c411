"""Features of images by a backbone that knows other images already."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence

import torch
from mmengine.config import ConfigDict
from mmengine.logging import MMLogger
from mmengine.model import BaseModel, ImgDataPreprocessor
from torch import Tensor

from tjls_mm.errors import InputError
from tjls_mm.registry import MODELS

LITE0 = dict(
    type='tjls_mm.EfficientNetLite0',
    out_indices=(5,),
    init_cfg=dict(type='Pretrained', checkpoint='package://efficientnet_lite0'),
)
"""What the ImageNet classifier of the extra ``pretrained`` pools: 1280 features."""


@MODELS.register_module()
class PretrainedFeatures(BaseModel):
    """The average of a backbone's last map over the image, (B, F); never trained.

    Args:
        backbone: Config of a backbone of mmdet, mmpretrain or tjls_mm, whose
            ``init_cfg`` names its weights; None: ``LITE0``.
        mean, std: Of the images that the weights saw, one number per channel, in
            [0, 255]; None: those of ``LITE0``, and of no other backbone.
        size: Images are resized to so many pixels, whatever their aspect ratio.
        rgb_to_bgr: The weights want BGR, and mean and std are given in that order.
        batch_size: Images per forward pass.
        num_workers: Processes that load images, per process.

    Raises:
        InputError: If mean and std of another backbone are missing, or sizes are not
            1 or more.
    """

    def __init__(
        self,
        backbone: Mapping | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        size: int = 224,
        rgb_to_bgr: bool = False,
        batch_size: int = 16,
        num_workers: int = 0,
    ) -> None:
        if backbone is not None and (mean is None or std is None):
            raise InputError(
                'method.features: expected mean and std of the images that the weights '
                f'of {backbone.get("type")!r} saw, e.g. mean=[123.675, 116.28, 103.53],'
                ' std=[58.395, 57.12, 57.375] for weights of torchvision.'
            )
        for name, value in (('size', size), ('batch_size', batch_size)):
            if type(value) is not int or value < 1:
                raise InputError(
                    f'method.features.{name} must be 1 or more, got {value!r}.'
                )
        mean, std = mean or [127.0] * 3, std or [128.0] * 3
        pixels = dict(mean=list(mean), std=list(std), rgb_to_bgr=rgb_to_bgr)
        super().__init__(ImgDataPreprocessor(**pixels))
        self.config = ConfigDict(backbone or LITE0)
        self.backbone = MODELS.build(self.config)
        # Faster on CPUs, and harmless for what is no convolution.
        self.backbone.to(memory_format=torch.channels_last)
        self.size, self.batch_size, self.num_workers = size, batch_size, num_workers
        # Part of what is hashed beside the weights: outputs of another are not ours.
        shape = {k: v for k, v in self.config.items() if k != 'init_cfg'}
        recipe = repr((sorted(shape.items()), sorted(pixels.items()), size)).encode()
        digest = hashlib.blake2b(recipe, digest_size=16).digest()
        self.register_buffer('recipe', torch.tensor(list(digest), dtype=torch.uint8))

    def init_weights(self) -> None:
        """Load the weights that ``init_cfg`` names.

        Raises:
            InputError: If they leave a layer as it was: they are of another backbone.
        """
        layers = {n: w for n, w in self.backbone.named_parameters() if w.ndim > 1}
        before = {name: w.detach().clone() for name, w in layers.items()}
        with _quiet():
            self.backbone.init_weights()
        missing = [name for name, w in layers.items() if w.equal(before[name])]
        if missing and self.config.get('init_cfg'):
            raise InputError(
                f'method.features: the weights {self.config["init_cfg"]} lack '
                f'{len(missing)} of {len(layers)} layers of '
                f'{type(self.backbone).__name__}, {missing[0]!r} the first: name '
                'weights of this backbone.'
            )

    def forward(self, inputs: Tensor, data_samples=None, mode: str = 'tensor'):
        """Images (B, 3, H, W) to (B, F), float32."""
        last = self.backbone(inputs.contiguous(memory_format=torch.channels_last))
        while not isinstance(last, Tensor):
            last = last[-1]
        if last.ndim == 4:
            last = last.mean((2, 3))
        elif last.ndim == 3:  # tokens
            last = last.mean(1)
        return last.float()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    # MMEngine says for every weight where it comes from.
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
