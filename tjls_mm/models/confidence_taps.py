"""Where the confidences of a detector are: class logits, before the task loss.

Letters of shapes: ``B`` images, ``F`` channels, ``Q`` queries, ``K`` classes.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from mmdet.models.detectors import SingleStageDetector, TwoStageDetector
from mmdet.models.detectors.base_detr import DetectionTransformer
from torch import Tensor, nn

from tjls_mm.errors import InputError

# They add tokens or images of their own: dense queries, texts, branches of images.
OTHERS = ('DDQDETR', 'GroundingDINO', 'GLIP', 'TridentFasterRCNN')


class ConfidenceTap(Protocol):
    """Reads the confidences from what a head returns, and puts others there.

    Attributes:
        head: The module that returns them.
        channels: ``F`` of every level.
        sizes: Size of every level where the config tells it, (H, W) or (Q,), or None.
        feat_channels: Width of every level of the features that the head is given.
        is_lossless: Whether what is read and written back stays the same to the bit.
    """

    head: nn.Module
    channels: list[int]
    sizes: list[tuple[int, ...]] | None
    feat_channels: list[int]
    is_lossless: bool

    def read(self, outs: tuple) -> list[Tensor]:
        """Logits of each level, (B, F, H, W) or (B, F, Q)."""

    def write(self, outs: tuple, maps: Sequence[Tensor]) -> tuple:
        """What the head would return with these logits."""

    def first(self, outs: tuple, n_images: int) -> tuple:
        """What the head returns of the first images of the batch."""


class DenseTap:
    """Heads on feature maps: ``outs[0]`` are logits per level, (B, A * K, H, W).

    ``A`` priors of a location; of two-stage detectors the region proposal network,
    whose ``K`` is 1.
    """

    def __init__(self, head: nn.Module, config: Mapping) -> None:
        self.head = head
        generator = head.prior_generator
        priors = getattr(head, 'num_base_priors', 1)  # YOLOX does not say so
        if not isinstance(priors, (list, tuple)):
            priors = [priors] * generator.num_levels
        self.channels = [n * head.cls_out_channels for n in priors]
        self.sizes = None
        side = (config.get('anchor_generator') or {}).get('input_size')
        if side:  # SSD; strides are (across, down)
            self.sizes = [
                tuple(-(-side // stride) for stride in reversed(pair))
                for pair in generator.strides
            ]
        widths = head.in_channels
        if not isinstance(widths, (list, tuple)):
            widths = [widths] * generator.num_levels
        self.feat_channels = list(widths)
        # TOOD returns probabilities.
        activated = getattr(getattr(head, 'loss_cls', None), 'activated', False)
        self.is_lossless = not activated

    def read(self, outs: tuple) -> list[Tensor]:
        if not self.is_lossless:
            return [torch.logit(level, 1e-6) for level in outs[0]]
        return list(outs[0])

    def write(self, outs: tuple, maps: Sequence[Tensor]) -> tuple:
        if not self.is_lossless:
            maps = [level.sigmoid() for level in maps]
        return type(outs[0])(maps), *outs[1:]

    def first(self, outs: tuple, n_images: int) -> tuple:
        return first_images(outs, n_images)


class QueryTap:
    """Detection transformers: ``outs[0]`` is (layers, B, Q, K), of the last layer.

    Queries that come before the ``Q`` own ones are denoised truth and left alone.
    """

    is_lossless = True

    def __init__(self, detector: DetectionTransformer) -> None:
        self.head = detector.bbox_head
        self.n_queries = detector.num_queries
        self.channels = [self.head.cls_out_channels]
        self.sizes = [(self.n_queries,)]
        levels = getattr(detector, 'level_embed', None)
        n_levels = 1 if levels is None else len(levels)
        self.feat_channels = [detector.embed_dims] * n_levels

    def read(self, outs: tuple) -> list[Tensor]:
        return [outs[0][-1, :, -self.n_queries :].transpose(1, 2)]

    def write(self, outs: tuple, maps: Sequence[Tensor]) -> tuple:
        logits = outs[0].clone()
        logits[-1, :, -self.n_queries :] = maps[0].transpose(1, 2)
        return logits, *outs[1:]

    def first(self, outs: tuple, n_images: int) -> tuple:
        return tuple(out[:, :n_images] for out in outs)


def first_images(value, n_images: int):
    """The first rows of every tensor in nested lists and tuples."""
    if isinstance(value, (list, tuple)):
        return type(value)(first_images(part, n_images) for part in value)
    return value[:n_images] if isinstance(value, Tensor) else value


def find_tap(detector: nn.Module, config: Mapping) -> ConfidenceTap:
    """The tap of a built detector, from its config too; InputError if there is none."""
    names = {cls.__name__ for cls in type(detector).__mro__}
    if isinstance(detector, DetectionTransformer) and not names & {*OTHERS}:
        return QueryTap(detector)
    head = getattr(detector, 'rpn_head', None) or getattr(detector, 'bbox_head', None)
    known = isinstance(detector, (SingleStageDetector, TwoStageDetector))
    if known and not names & {*OTHERS}:
        needs = ('cls_out_channels', 'prior_generator', 'in_channels')
        if all(hasattr(head, name) for name in needs):
            return DenseTap(head, config.get('bbox_head') or {})
    name = type(detector).__name__.removeprefix('Joint')
    raise InputError(
        f'{name} with {type(head).__name__} cannot be trained jointly: expected a head '
        'that returns class logits per level, (B, priors * classes, H, W), or a '
        'detection transformer of fixed queries. Use a method without bottleneck and '
        'branches, such as _base_/methods/random.py. Or write a ConfidenceTap '
        '(tjls_mm/models/confidence_taps.py says what it has), return it from '
        f'build_tap of class My{name}(tjls_mm.models.JointDetectorMixin, {name}), '
        f"register that in MODELS, and set model.type='My{name}'."
    )
