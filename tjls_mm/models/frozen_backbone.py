"""A backbone that is not trained, whose features are computed once per image."""

import copy
import hashlib
from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from mmcv.cnn import fuse_conv_bn
from mmengine.model import BaseModule
from mmengine.utils import to_2tuple
from torch import Tensor, nn

from tjls_mm.bounded_cache import BoundedCache
from tjls_mm.registry import MODELS

_FEATURES = BoundedCache()
"""Of this process: the next stage of a trial finds the features of the last one."""


@MODELS.register_module()
class FrozenBackbone(BaseModule):
    """Any backbone, frozen: in evaluation mode, without gradients, in float32.

    An image that comes again, to the bit, gets the features that it had, whatever
    pipeline drew it. Images go through the backbone one at a time, so features
    depend neither on the rest of the batch nor on what is remembered. Batch norm is
    folded into the convolution before it, which rounds otherwise and takes less time.

    Args:
        backbone: Config of the backbone.
        cached_images: How many images' features the process remembers, the last ones
            used; 0 for none. 224 x 224 pixels take 0.27 MB with EfficientNet-Lite0.
        size: Side in pixels, or (height, width), that images are resized to before the
            backbone, bilinearly; None: as they come. Small images stay small wherever
            they are kept.
        pooled: Return, and remember, the average of a level over its locations, with
            height and width 1: all that a classifier needs, 1.3 kB where a level has
            320 channels.
    """

    def __init__(
        self,
        backbone: Mapping,
        cached_images: int = 0,
        size: int | Sequence[int] | None = None,
        pooled: bool = False,
        init_cfg=None,
    ) -> None:
        super().__init__(init_cfg)
        self.backbone = MODELS.build(backbone).requires_grad_(False)
        # Faster on CPUs, and harmless for what is no convolution.
        self.backbone.to(memory_format=torch.channels_last)
        self.cached_images = cached_images
        self.size = size and tuple(to_2tuple(size))
        self.pooled = pooled
        self._config = repr((backbone, self.size, pooled)).encode()
        self._known = (None, b'')
        # Not a submodule: it is no weight of its own.
        self.__dict__['_folded'] = None
        self.train()

    def train(self, mode: bool = True) -> 'FrozenBackbone':
        super().train(mode)
        self.backbone.eval()
        return self

    def forward(self, inputs: Tensor) -> tuple[Tensor, ...]:
        """Images (B, C, H, W) to what the backbone returns, (B, ...) per level."""
        digest = self._digest_weights()
        levels = zip(
            *(self._features(image, digest) for image in inputs.split(1)), strict=True
        )
        return tuple(torch.cat(level) for level in levels)

    def _features(self, image: Tensor, digest: bytes) -> tuple[Tensor, ...]:
        if not self.cached_images:
            return self._extract(image)
        key = (digest, image.device, image.shape, _digest([image]))
        return _FEATURES.fetch(key, lambda: self._extract(image), self.cached_images)

    @torch.no_grad()
    def _extract(self, image: Tensor) -> tuple[Tensor, ...]:
        image = image.float()
        if self.size and self.size != image.shape[-2:]:
            image = F.interpolate(image, self.size, mode='bilinear', antialias=True)
        image = image.contiguous(memory_format=torch.channels_last)
        with torch.autocast(image.device.type, enabled=False):
            levels = _levels(self._folded(image))
        if self.pooled:
            levels = [level.mean((2, 3), keepdim=True) for level in levels]
        return tuple(level.contiguous() for level in levels)

    def _digest_weights(self) -> bytes:
        weights = self.backbone.state_dict(keep_vars=True).values()
        # Loading writes in place, which counts versions up; moving makes new memory.
        versions = [(w.data_ptr(), w._version) for w in weights]
        if self._known[0] != versions:
            self._known = (versions, _digest(weights, self._config))
            self.__dict__['_folded'] = _fold(self.backbone)
        return self._known[1]


def _fold(backbone: nn.Module) -> nn.Module:
    """A copy without batch norm; the backbone itself where that is not the same."""
    folded = fuse_conv_bn(copy.deepcopy(backbone))
    folded.to(memory_format=torch.channels_last)
    weight = next(backbone.parameters())
    image = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad(), torch.autocast(weight.device.type, enabled=False):
            ours, theirs = (_levels(m(image.to(weight))) for m in (backbone, folded))
            pairs = zip(ours, theirs, strict=True)
            is_same = all(torch.allclose(a, b, 1e-3, 1e-3) for a, b in pairs)
    except RuntimeError:  # it wants other images
        return backbone
    return folded if is_same else backbone


def _levels(outputs: Tensor | Sequence[Tensor]) -> Sequence[Tensor]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _digest(tensors: Iterable[Tensor], start: bytes = b'') -> bytes:
    content = hashlib.blake2b(start, digest_size=16)
    for tensor in tensors:
        content.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())
    return content.digest()
