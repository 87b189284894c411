"""Outputs of SSD."""

import contextlib
from collections.abc import Iterator, Sequence
from unittest import mock

import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.detectors import SingleStageDetector
from mmengine.structures import InstanceData
from torch import Tensor, nn

from tjls_mm.errors import TrainingDiverged
from tjls_mm.registry import POOL_READERS

from .base import DropoutMasks, PoolReader, branch_names, entropy, read_branches

ENTROPIES = ('predictive_entropy', 'mutual_information')


@POOL_READERS.register_module()
class SSDReader(PoolReader):
    """SingleStageDetector with SSDHead, plain or joint.

    Stochastic passes drop channels of the feature maps that the head is given.
    """

    def fits(self, model: nn.Module) -> bool:
        head = getattr(model, 'bbox_head', None)
        return isinstance(model, SingleStageDetector) and isinstance(head, SSDHead)

    def provides(self, model: nn.Module) -> tuple[str, ...]:
        own = ('boxes', 'box_feature', 'feature', *ENTROPIES)
        return (*own, *branch_names(model))

    def other_family(self, name: str) -> str:
        return (
            f'{name!r} is of classifiers; a detector has boxes, each with its class '
            f'probabilities, and as numbers per image {" and ".join(ENTROPIES)}'
        )

    def read(
        self, model: nn.Module, data: dict, names: Sequence[str], masks: DropoutMasks
    ) -> dict[str, Tensor | list]:
        head = model.bbox_head
        maps = model.extract_feat(data['inputs'])
        outputs = {'feature': torch.cat([m.mean((2, 3)) for m in maps], 1)}
        with_boxes = 'boxes' in names or 'box_feature' in names
        with_branches = set(names) & set(branch_names(model))
        if with_branches:
            with model.watching(data['data_samples']) as seen:
                seen.feats = maps
                conf, deltas = head(maps)
            inputs = model.branch_inputs(seen)
            outputs.update(read_branches(model, inputs, names))
        elif with_boxes:
            conf, deltas = head(maps)
        if with_boxes:
            _refuse_non_finite(conf, masks.image_ids)
            metas = [sample.metainfo for sample in data['data_samples']]
            with class_rows(head):
                boxes = head.predict_by_feat(conf, deltas, None, metas, rescale=True)
            outputs['boxes'] = boxes
            if 'box_feature' in names:
                outputs['box_feature'] = box_features(maps[0], boxes, data)
        if set(names) & set(ENTROPIES):
            outputs.update(_stochastic(head, maps, masks))
        return {name: value for name, value in outputs.items() if name in names}


def _refuse_non_finite(conf: Sequence[Tensor], image_ids: Sequence[str]) -> None:
    # Not a number is above no threshold: an image without boxes, it seems.
    for level in conf:
        for row in (~torch.isfinite(level)).flatten(1).any(1).nonzero().flatten():
            raise TrainingDiverged(
                f'class logits of {image_ids[row]!r} are not finite: begin again in '
                'another --work-dir, with a lower optim_wrapper.optimizer.lr.'
            )


def _stochastic(head: SSDHead, maps: Sequence[Tensor], masks: DropoutMasks) -> dict:
    """Entropies of T passes, averaged over priors; of passes only sums are kept."""
    widths = [m.shape[1] for m in maps]
    total, single = 0, 0
    for factors in masks.draw(sum(widths), maps[0].device):
        parts = factors.split(widths, 1)
        dropped = [m * f[..., None, None] for m, f in zip(maps, parts, strict=True)]
        conf, _ = head(dropped)
        classes = head.cls_out_channels
        logits = [c.permute(0, 2, 3, 1).reshape(len(c), -1, classes) for c in conf]
        probability = torch.cat(logits, 1).softmax(-1)  # (B, priors, K + 1)
        total = total + probability
        single = single + entropy(probability).mean(1)
    predictive = entropy(total / masks.passes).mean(1)
    return {
        'predictive_entropy': predictive,
        # Rounding may leave a difference of nothing below 0.
        'mutual_information': (predictive - single / masks.passes).clamp(0),
    }


@contextlib.contextmanager
def class_rows(head: SSDHead) -> Iterator[None]:
    """Let every kept box have its row of class probabilities as ``probs``.

    mmdet's post-processing decides which boxes are kept; the rows travel along.
    """
    functions = type(head)._predict_by_feat_single.__globals__
    select, finish = functions['filter_scores_and_topk'], head._bbox_post_process
    rows = []

    def recording(scores, *args, **kwargs):
        selected = select(scores, *args, **kwargs)
        rows.append(scores[selected[2]])
        return selected

    def carrying(results, *args, **kwargs):
        results.probs = torch.cat(rows)
        rows.clear()
        return finish(results, *args, **kwargs)

    with (
        mock.patch.dict(functions, filter_scores_and_topk=recording),
        mock.patch.object(head, '_bbox_post_process', carrying),
    ):
        yield


def box_features(level: Tensor, boxes: Sequence[InstanceData], data: dict) -> list:
    """Mean of a feature map over the area of each box.

    ``level`` is (B, C, H, W), of the whole padded input; boxes are in original pixels.
    Per image (m, C); cells that a box covers in part count for as much.
    """
    height, width = data['inputs'].shape[-2:]
    found = []
    for maps, instances, sample in zip(level, boxes, data['data_samples'], strict=True):
        scale_x, scale_y = sample.metainfo['scale_factor']
        x1, y1, x2, y2 = instances.bboxes.unbind(1)
        across = _cover(x1 * scale_x, x2 * scale_x, maps.shape[2], width)
        down = _cover(y1 * scale_y, y2 * scale_y, maps.shape[1], height)
        found.append(torch.einsum('mh,chw,mw->mc', down, maps, across))
    return found


def _cover(start: Tensor, stop: Tensor, cells: int, pixels: int) -> Tensor:
    """Share of each cell in an interval, (m, cells); rows sum to 1."""
    start, stop = (x[:, None] * (cells / pixels) for x in (start, stop))
    edge = torch.arange(cells, device=start.device, dtype=start.dtype)
    covered = (torch.minimum(stop, edge + 1) - torch.maximum(start, edge)).clamp(0)
    return covered / covered.sum(1, keepdim=True).clamp(1e-12)
