"""Outputs of one-stage detectors."""

import contextlib
from collections.abc import Iterator, Sequence
from unittest import mock

import torch
from mmdet.models.dense_heads import PAAHead, YOLOXHead
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import SingleStageDetector
from mmengine.structures import InstanceData
from torch import Tensor, nn

from tjls_mm.models.batch_bottleneck import crop_to_valid
from tjls_mm.models.confidence_vectors import valid_fractions
from tjls_mm.registry import POOL_READERS

from .base import DropoutMasks
from .detector import DetectorReader, dropped_maps, refuse_non_finite


def _calls(method, *names: str) -> bool:
    code = getattr(method, '__code__', None)
    return code is not None and set(names) <= set(code.co_names)


@POOL_READERS.register_module()
class DenseReader(DetectorReader):
    """SingleStageDetector with a head that finds its boxes as most heads do.

    SSD, RetinaNet, ATSS, GFL, FCOS, TOOD, VFNet, RepPoints, YOLOF, RTMDet, and others
    with mmdet's usual post-processing. Stochastic passes drop channels of the feature
    maps that the head is given.
    """

    def fits(self, model: nn.Module) -> bool:
        head = getattr(model, 'bbox_head', None)
        single_stage = isinstance(model, SingleStageDetector)
        return single_stage and isinstance(head, BaseDenseHead) and self.knows(head)

    def knows(self, head: nn.Module) -> bool:
        """Whether ``class_rows`` finds in a head what it follows."""
        cls = type(head)
        single = cls._predict_by_feat_single
        return (
            cls.predict is BaseDenseHead.predict
            and _calls(cls.predict_by_feat, '_predict_by_feat_single')
            and _calls(single, 'filter_scores_and_topk', '_bbox_post_process')
        )

    def multi_label(self, model: nn.Module) -> bool:
        return model.bbox_head.use_sigmoid_cls

    def boxes(
        self,
        model: nn.Module,
        feats: Sequence[Tensor],
        samples: Sequence,
        image_ids: Sequence[str],
    ) -> list[InstanceData]:
        head = model.bbox_head
        outs = head(feats)
        for levels in (outs[0], *outs[2:]):  # class logits, centerness, objectness
            for level in levels:
                refuse_non_finite(level, image_ids)
        metas = [sample.metainfo for sample in samples]
        with self.class_rows(head, outs):
            return head.predict_by_feat(*outs, batch_img_metas=metas, rescale=True)

    def passes(
        self,
        model: nn.Module,
        feats: Sequence[Tensor],
        samples: Sequence,
        masks: DropoutMasks,
    ) -> Iterator[list[Tensor]]:
        head = model.bbox_head
        valid = valid_fractions(samples) or [(1, 1)] * len(samples)
        for maps in dropped_maps(feats, masks):
            levels = [crop_to_valid(level, valid) for level in head(maps)[0]]
            for_images = zip(*levels, strict=True)
            yield [probabilities(head, [m[0] for m in own]) for own in for_images]

    @contextlib.contextmanager
    def class_rows(self, head: nn.Module, outs: Sequence) -> Iterator[None]:
        """Let every kept box have its class probabilities and the number of its prior.

        mmdet's post-processing decides which boxes are kept; the rows travel along.
        """
        functions = type(head)._predict_by_feat_single.__globals__
        select = functions['filter_scores_and_topk']
        probs, priors, n_priors = [], [], 0

        def recording(scores, *args, **kwargs):
            nonlocal n_priors
            selected = select(scores, *args, **kwargs)
            probs.append(scores[selected[2]])
            priors.append(selected[2] + n_priors)
            n_priors += len(scores)
            return selected

        def carry(results: InstanceData) -> None:
            nonlocal n_priors
            results.probs, results.priors = torch.cat(probs), torch.cat(priors)
            probs.clear()
            priors.clear()
            n_priors = 0

        with (
            mock.patch.dict(functions, filter_scores_and_topk=recording),
            _before_suppression(head, carry),
        ):
            yield


@contextlib.contextmanager
def _before_suppression(head: nn.Module, carry) -> Iterator[None]:
    """Show candidates of each image to a function before a head suppresses some."""
    finish = head._bbox_post_process

    def carrying(results, *args, **kwargs):
        carry(results)
        return finish(results, *args, **kwargs)

    with mock.patch.object(head, '_bbox_post_process', carrying):
        yield


def probabilities(head: nn.Module, levels: Sequence[Tensor]) -> Tensor:
    """Of all priors of an image, (priors, C), from maps (A * C, H, W) of a head."""
    classes = head.cls_out_channels
    rows = torch.cat([level.permute(1, 2, 0).reshape(-1, classes) for level in levels])
    if getattr(getattr(head, 'loss_cls', None), 'activated', False):  # TOOD
        return rows
    return rows.sigmoid() if head.use_sigmoid_cls else rows.softmax(-1)


@POOL_READERS.register_module()
class YOLOXReader(DenseReader):
    """The same of YOLOX, whose boxes have the label of the highest probability."""

    def knows(self, head: nn.Module) -> bool:
        return type(head).predict_by_feat is YOLOXHead.predict_by_feat

    @contextlib.contextmanager
    def class_rows(self, head: nn.Module, outs: Sequence) -> Iterator[None]:
        """See DenseReader; candidates are those that YOLOXHead lets pass."""
        images = zip(*map(_levels_of_images, (outs[0], outs[2])), strict=True)

        def carry(results: InstanceData) -> None:
            logits, objectness = next(images)
            probs = probabilities(head, logits)
            factor = torch.cat([level.flatten() for level in objectness]).sigmoid()
            kept = factor * probs.max(1).values >= head.test_cfg.score_thr
            results.probs, results.priors = probs[kept], kept.nonzero().flatten()

        with _before_suppression(head, carry):
            yield


def _levels_of_images(levels: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    return zip(*levels, strict=True)


@POOL_READERS.register_module()
class PAAReader(DenseReader):
    """The same of PAA, whose boxes are moved by a vote and come class by class."""

    def knows(self, head: nn.Module) -> bool:
        cls = type(head)
        return (
            cls._predict_by_feat_single is PAAHead._predict_by_feat_single
            and cls._bbox_post_process is PAAHead._bbox_post_process
        )

    @contextlib.contextmanager
    def class_rows(self, head: nn.Module, outs: Sequence) -> Iterator[None]:
        """See DenseReader; here the rows of kept boxes come from the suppression."""
        functions = PAAHead._bbox_post_process.__globals__
        suppress, finish = functions['multiclass_nms'], head._bbox_post_process
        images = zip(*map(_levels_of_images, (outs[0], outs[2])), strict=True)
        kept = []

        def recording(*args, **kwargs):
            boxes, labels, indices = suppress(*args, return_inds=True, **kwargs)
            # The vote goes through the classes; within one it keeps the order.
            order = labels.argsort(stable=True) if head.with_score_voting else ...
            kept.append((indices // head.num_classes)[order])
            return boxes, labels

        def carrying(results, cfg, *args, **kwargs):
            probs = results.scores
            priors = _best_priors(head, *next(images), cfg.get('nms_pre', -1))
            found = finish(results, cfg, *args, **kwargs)
            rows = kept.pop()
            found.probs, found.priors = probs[rows], priors[rows]
            return found[found.scores.argsort(descending=True, stable=True)]

        with (
            mock.patch.dict(functions, multiclass_nms=recording),
            mock.patch.object(head, '_bbox_post_process', carrying),
        ):
            yield


def _best_priors(
    head: nn.Module, logits: Sequence[Tensor], ious: Sequence[Tensor], limit: int
) -> Tensor:
    """Priors that PAAHead considers, in its order: so many of each level."""
    chosen, n_priors = [], 0
    for level, iou in zip(logits, ious, strict=True):
        scores = probabilities(head, [level])
        factor = iou.permute(1, 2, 0).reshape(-1).sigmoid()
        rows = torch.arange(len(scores), device=scores.device)
        if 0 < limit < len(scores):
            best = (scores * factor[:, None]).sqrt().max(dim=1).values
            rows = best.topk(limit).indices
        chosen.append(rows + n_priors)
        n_priors += len(scores)
    return torch.cat(chosen)
