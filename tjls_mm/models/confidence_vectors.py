"""One vector of fixed length per image, of the confidences of all levels.

What branches of a joint detector are given. Letters: see ``confidence_taps``.
"""

import math
from abc import abstractmethod
from collections.abc import Sequence
from fractions import Fraction

import torch
import torch.nn.functional as F
from mmengine import dist
from mmengine.model import BaseModule
from torch import Tensor

from tjls_mm.errors import InputError
from tjls_mm.models.batch_bottleneck import Valid, crop_to_valid
from tjls_mm.registry import MODELS


class ConfidenceVector(BaseModule):
    """Base: a subclass describes maps, this standardises the description.

    With ``standardize`` every number has the mean of all images so far taken away and
    is divided by their deviation, in training and in evaluation alike: unlike batch
    norm it works with batches of one labelled and one pool image. The logits of
    sigmoid heads are nearly the same everywhere: their differences would drown.

    Args:
        channels: ``F`` of every level.
        sizes: Size of every level, or None where it is not fixed.
        standardize: See above.
        momentum: Weight of a batch in the running mean and variance, at least
            1 / (batches so far), in (0, 1].
        init_cfg: Of MMEngine's BaseModule.

    Attributes:
        out_features: Length ``D`` of the vector.
    """

    def __init__(
        self,
        channels: Sequence[int],
        sizes: Sequence[tuple[int, ...]] | None = None,
        standardize: bool = True,
        momentum: float = 0.05,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.out_features = self._length(channels, sizes)
        self.momentum = momentum
        self.standardize = standardize
        if standardize:
            self.register_buffer('mean', torch.zeros(self.out_features))
            self.register_buffer('var', torch.ones(self.out_features))
            self.register_buffer('seen', torch.zeros(()))

    def forward(self, maps: Sequence[Tensor], valid: Valid = None) -> Tensor:
        """(B, D) of maps (B, F, H, W) or (B, F, Q), one per level."""
        x = self._describe(maps, valid)
        if not self.standardize:
            return x
        x = x.float()
        if self.training:
            self._update(x.detach())
        return (x - self.mean) * (self.var + 1e-5).rsqrt()

    @torch.no_grad()
    def _update(self, x: Tensor) -> None:
        self.seen += 1
        weight = (1 / self.seen).clamp(min=self.momentum)
        self.mean.lerp_(_mean_of_all(x), weight)
        self.var.lerp_(_mean_of_all((x - self.mean) ** 2), weight)

    @abstractmethod
    def _length(self, channels: Sequence[int], sizes) -> int:
        """``D``; InputError if it cannot be."""

    @abstractmethod
    def _describe(self, maps: Sequence[Tensor], valid: Valid) -> Tensor:
        """(B, D) before standardisation."""


@MODELS.register_module()
class ConfidenceStats(ConfidenceVector):
    """Mean, deviation and maximum of every channel over the locations or queries.

    Args: See ``ConfidenceVector``. Images may differ in size.
    """

    def _length(self, channels: Sequence[int], sizes) -> int:
        return 3 * sum(channels)

    def _describe(self, maps: Sequence[Tensor], valid: Valid) -> Tensor:
        return torch.cat([self._level(level.float(), valid) for level in maps], 1)

    def _level(self, level: Tensor, valid: Valid) -> Tensor:
        # Queries have no place: all of them are valid.
        whole = valid is None or level.ndim < 4
        parts = [level] if whole else crop_to_valid(level, valid)
        return torch.cat([self._stats(part.flatten(2)) for part in parts])

    @staticmethod
    def _stats(x: Tensor) -> Tensor:
        deviation = (x.var(2, unbiased=False) + 1e-6).sqrt()
        return torch.cat([x.mean(2), deviation, x.amax(2)], 1)


@MODELS.register_module()
class ConfidenceGrid(ConfidenceVector):
    """Averages over a coarse grid of every level, which keep where something is.

    Args:
        side: Cells of the grid in a row and in a column.
        **kwargs: See ``ConfidenceVector``. Images may differ in size.
    """

    def __init__(self, *args, side: int = 4, **kwargs) -> None:
        self.side = side
        super().__init__(*args, **kwargs)

    def _length(self, channels: Sequence[int], sizes) -> int:
        if sizes and len(sizes[0]) == 1:
            raise InputError(
                'method.vector: queries have no place for ConfidenceGrid: expected a '
                "detector with maps. Use dict(type='tjls_mm.ConfidenceStats')."
            )
        return sum(channels) * self.side**2

    def _describe(self, maps: Sequence[Tensor], valid: Valid) -> Tensor:
        return torch.cat([self._level(level.float(), valid) for level in maps], 1)

    def _level(self, level: Tensor, valid: Valid) -> Tensor:
        parts = [level] if valid is None else crop_to_valid(level, valid)
        cells = [F.adaptive_avg_pool2d(part, self.side).flatten(1) for part in parts]
        return torch.cat(cells)


@MODELS.register_module()
class ConfidenceFlatten(ConfidenceVector):
    """All confidences side by side, the paper's choice: images of one size only.

    Args:
        sizes: By default what the head tells, else it has to be given.
        standardize: See ``ConfidenceVector``.
        **kwargs: See ``ConfidenceVector``.

    Source: TJLS, Sec. 4.2.
    """

    def __init__(self, *args, sizes=None, standardize: bool = False, **kwargs) -> None:
        self.sizes = sizes and [tuple(size) for size in sizes]
        super().__init__(*args, sizes=sizes, standardize=standardize, **kwargs)

    def _length(self, channels: Sequence[int], sizes) -> int:
        if not sizes:
            raise InputError(
                'method.vector: ConfidenceFlatten needs the sizes of the maps, which '
                'this head does not tell: name them, sizes=[(H, W), ...], or use '
                "dict(type='tjls_mm.ConfidenceStats')."
            )
        pairs = zip(channels, sizes, strict=True)
        return sum(width * math.prod(size) for width, size in pairs)

    def _describe(self, maps: Sequence[Tensor], valid: Valid) -> Tensor:
        found = [tuple(level.shape[2:]) for level in maps]
        if found != self.sizes:
            raise ValueError(
                f'The confidence maps are of size {found}, expected {self.sizes}: '
                'resize every image to one size with keep_ratio=False, or set '
                "method.vector=dict(type='tjls_mm.ConfidenceStats')."
            )
        return torch.cat([level.flatten(1) for level in maps], 1)


def valid_fractions(samples: Sequence) -> Valid:
    """Share of the padded input that every image takes."""
    pairs = [
        tuple(
            min(Fraction(1), Fraction(int(own), int(padded)))
            for own, padded in zip(s.img_shape[:2], s.batch_input_shape, strict=True)
        )
        for s in samples
    ]
    return None if all(pair == (1, 1) for pair in pairs) else pairs


def _mean_of_all(x: Tensor) -> Tensor:
    """Mean over the images of all processes, each of which has as many."""
    mean = x.mean(0)
    if dist.get_world_size() > 1:
        dist.all_reduce(mean, op='mean')
    return mean
