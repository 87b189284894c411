"""What the readers of all detectors have in common."""

import contextlib
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence

import torch
from mmengine.structures import InstanceData
from torch import Tensor, nn

from tjls_mm.errors import TrainingDiverged
from tjls_mm.models import JointDetectorMixin
from tjls_mm.models.batch_bottleneck import pool_locations
from tjls_mm.models.confidence_vectors import valid_fractions

from .base import (
    DropoutMasks,
    PoolReader,
    binary_entropy,
    branch_names,
    entropy,
    read_branches,
)

ENTROPIES = ('predictive_entropy', 'mutual_information')


class DetectorReader(PoolReader):
    """Reads detectors; a family says how boxes and stochastic passes come about."""

    def provides(self, model: nn.Module) -> tuple[str, ...]:
        own = ('boxes', 'flip_boxes', 'box_feature', 'feature', *ENTROPIES)
        return (*own, *branch_names(model))

    def other_family(self, name: str) -> str:
        return (
            f'{name!r} is of classifiers; a detector has boxes, each with its class '
            f'probabilities, and as numbers per image {" and ".join(ENTROPIES)}'
        )

    @abstractmethod
    def boxes(
        self,
        model: nn.Module,
        feats: Sequence[Tensor],
        samples: Sequence,
        image_ids: Sequence[str],
    ) -> list[InstanceData]:
        """Detections of B images, bit-equal to those of the detector's ``predict``.

        Highest score first, in original pixels, with ``probs`` (m, K) and ``priors``
        (m,). ``image_ids`` name images whose logits are not finite.
        """

    @abstractmethod
    def passes(
        self,
        model: nn.Module,
        feats: Sequence[Tensor],
        samples: Sequence,
        masks: DropoutMasks,
    ) -> Iterator[list[Tensor]]:
        """Per stochastic pass the probabilities of every image, B times (priors, C).

        Row i is of the same prior in all passes; priors in the padding are left out.
        """

    @abstractmethod
    def multi_label(self, model: nn.Module) -> bool:
        """Whether classes are K yes-or-no questions (sigmoid), not one of C."""

    def read(
        self, model: nn.Module, data: dict, names: Sequence[str], masks: DropoutMasks
    ) -> dict[str, Tensor | list]:
        samples = data['data_samples']
        joint = isinstance(model, JointDetectorMixin)
        # Every pass: a bottleneck has to know what is padding.
        with model.watching(samples) if joint else contextlib.nullcontext() as seen:
            outputs = self._outputs(
                model, data['inputs'], samples, {*names}, masks, seen
            )
        return {name: value for name, value in outputs.items() if name in names}

    def _outputs(
        self,
        model: nn.Module,
        inputs: Tensor,
        samples: Sequence,
        asked: set[str],
        masks: DropoutMasks,
        seen,
    ) -> dict[str, Tensor | list]:
        ids, outputs = masks.image_ids, {}
        of_branches = asked & {*branch_names(model)}
        feats = model.extract_feat(inputs)
        if asked & {'boxes', 'box_feature'}:
            outputs['boxes'] = self.boxes(model, feats, samples, ids)
        elif of_branches:
            model.confidences(feats, samples)
        if of_branches:  # before another pass is seen
            outputs.update(read_branches(model, model.branch_inputs(seen), of_branches))
        if 'box_feature' in asked:
            outputs['box_feature'] = box_features(feats, outputs['boxes'], samples)
        if 'feature' in asked:
            outputs['feature'] = valid_means(feats, samples)
        if asked & {*ENTROPIES}:
            passes = self.passes(model, feats, samples, masks)
            multi_label = self.multi_label(model)
            outputs.update(_entropies(passes, masks.passes, multi_label))
        if 'flip_boxes' in asked:
            feats = model.extract_feat(mirrored(inputs, samples))
            found = self.boxes(model, feats, samples, ids)
            outputs['flip_boxes'] = mirrored_back(found, samples)
        return outputs


def _entropies(
    passes: Iterable[list[Tensor]], n_passes: int, multi_label: bool
) -> dict[str, Tensor]:
    """Entropies of T passes, averaged over priors; of passes only sums are kept."""
    of = binary_entropy if multi_label else entropy
    total, single = 0, 0
    for images in passes:
        total = [p + q for p, q in zip(total, images, strict=True)] if total else images
        single = single + torch.stack([_mean(of(p)) for p in images])
    predictive = torch.stack([_mean(of(p / n_passes)) for p in total])
    return {
        'predictive_entropy': predictive,
        # Rounding may leave a difference of nothing below 0.
        'mutual_information': (predictive - single / n_passes).clamp(0),
    }


def _mean(values: Tensor) -> Tensor:
    return values.sum() / max(1, len(values))


def refuse_non_finite(values: Sequence[Tensor], image_ids: Sequence[str]) -> None:
    """Raise TrainingDiverged if a number of an image, one tensor each, is not finite.

    Not a number is above no threshold: an image without boxes, it seems.
    """
    for image_id, own in zip(image_ids, values, strict=True):
        if not torch.isfinite(own).all():
            raise TrainingDiverged(
                f'class logits of {image_id!r} are not finite: begin again in another '
                '--work-dir, with a lower optim_wrapper.optimizer.lr.'
            )


def dropped_maps(feats: Sequence[Tensor], masks: DropoutMasks) -> Iterator[tuple]:
    """Feature maps of each stochastic pass: channels of every level are dropped."""
    widths = [level.shape[1] for level in feats]
    for factors in masks.draw(sum(widths), feats[0].device):
        parts = factors.split(widths, 1)
        pairs = zip(feats, parts, strict=True)
        yield tuple(level * part[..., None, None] for level, part in pairs)


def valid_means(feats: Sequence[Tensor], samples: Sequence) -> Tensor:
    """Mean of every level over the image without padding, side by side, (B, F)."""
    valid = valid_fractions(samples)
    return torch.cat([pool_locations(level, valid) for level in feats], 1)


def mirrored(inputs: Tensor, samples: Sequence) -> Tensor:
    """Images (B, 3, H, W), left and right exchanged; the padding stays where it is."""
    flipped = inputs.clone()
    for image, sample in zip(flipped, samples, strict=True):
        height, width = sample.metainfo['img_shape'][:2]
        image[:, :height, :width] = image[:, :height, :width].flip(-1)
    return flipped


def mirrored_back(
    boxes: Sequence[InstanceData], samples: Sequence
) -> list[InstanceData]:
    """Boxes of mirrored images where they are in the images, in original pixels."""
    for found, sample in zip(boxes, samples, strict=True):
        meta = sample.metainfo
        width = meta['img_shape'][1] / meta['scale_factor'][0]
        x1, y1, x2, y2 = found.bboxes.unbind(1)
        found.bboxes = torch.stack([width - x2, y1, width - x1, y2], 1)
    return list(boxes)


def box_features(
    feats: Sequence[Tensor], boxes: Sequence[InstanceData], samples: Sequence
) -> list[Tensor]:
    """Mean of a feature map over the area of each box, per image (m, F).

    Of the level that suits the size of a box (56 input pixels and below: the finest,
    twice the side: the next, as in FPN, Eq. 1), or of the finest where levels differ in
    width. ``feats`` are of the padded input, boxes in original pixels; cells that a box
    covers in part count for as much.
    """
    if len({level.shape[1] for level in feats}) > 1:
        feats = feats[:1]
    found = []
    for i, (instances, sample) in enumerate(zip(boxes, samples, strict=True)):
        scale = instances.bboxes.new_tensor(sample.metainfo['scale_factor'])
        corners = instances.bboxes * scale.repeat(2)
        size = (corners[:, 2:] - corners[:, :2]).clamp(0).prod(1).sqrt()
        chosen = (size / 56).log2().floor().clamp(0, len(feats) - 1)
        features = corners.new_zeros(len(corners), feats[0].shape[1])
        for number, level in enumerate(feats):
            rows = chosen == number
            padded = sample.metainfo['batch_input_shape']
            features[rows] = _area_means(level[i], corners[rows], padded)
        found.append(features)
    return found


def _area_means(level: Tensor, corners: Tensor, padded: Sequence[int]) -> Tensor:
    x1, y1, x2, y2 = corners.unbind(1)
    down = _cover(y1, y2, level.shape[1], padded[0])
    across = _cover(x1, x2, level.shape[2], padded[1])
    return torch.einsum('mh,chw,mw->mc', down, level, across)


def _cover(start: Tensor, stop: Tensor, cells: int, pixels: int) -> Tensor:
    """Share of each cell in an interval, (m, cells); rows sum to 1."""
    start, stop = (x[:, None] * (cells / pixels) for x in (start, stop))
    edge = torch.arange(cells, device=start.device, dtype=start.dtype)
    covered = (torch.minimum(stop, edge + 1) - torch.maximum(start, edge)).clamp(0)
    return covered / covered.sum(1, keepdim=True).clamp(1e-12)
