"""Outputs of two-stage detectors."""

from collections.abc import Iterator, Sequence

from mmdet.models.dense_heads.base_dense_head import BaseDenseHead
from mmdet.models.detectors import TwoStageDetector
from mmdet.models.layers import multiclass_nms
from mmdet.models.roi_heads import (
    BaseRoIHead,
    CascadeRoIHead,
    StandardRoIHead,
)
from mmengine.structures import InstanceData
from torch import Tensor, nn

from tjls_mm.registry import POOL_READERS

from .base import DropoutMasks
from .detector import DetectorReader, dropped_maps, refuse_non_finite


@POOL_READERS.register_module()
class TwoStageReader(DetectorReader):
    """Faster, Cascade, Mask R-CNN and relatives; of the last its boxes.

    Priors are the region proposals of an image. Stochastic passes drop channels of the
    feature maps that the box head looks at, with the proposals of the whole maps.
    """

    def fits(self, model: nn.Module) -> bool:
        rpn, roi = (getattr(model, name, None) for name in ('rpn_head', 'roi_head'))
        known = (StandardRoIHead.predict_bbox, CascadeRoIHead.predict_bbox)
        return (
            isinstance(model, TwoStageDetector)
            and getattr(type(rpn), 'predict', None) is BaseDenseHead.predict
            and getattr(type(roi), 'predict_bbox', None) in known
            # What merges branches or adds maps around predict_bbox is another reader's.
            and type(roi).predict is BaseRoIHead.predict
        )

    def multi_label(self, model: nn.Module) -> bool:
        return False

    def boxes(
        self,
        model: nn.Module,
        feats: Sequence[Tensor],
        samples: Sequence,
        image_ids: Sequence[str],
    ) -> list[InstanceData]:
        roi, cfg = model.roi_head, model.roi_head.test_cfg
        proposals = self._proposals(model, feats, samples, image_ids)
        # Boxes that masks are made for are rescaled after the suppression.
        late = roi.with_mask
        raw = _classified(roi, feats, samples, proposals, rescale=not late)
        refuse_non_finite([found.scores for found in raw], image_ids)
        results = []
        for found, sample in zip(raw, samples, strict=True):
            scores = found.scores
            boxes, labels, indices = multiclass_nms(
                found.bboxes,
                scores,
                cfg.score_thr,
                cfg.nms,
                cfg.max_per_img,
                return_inds=True,
            )
            rows = indices // (scores.shape[1] - 1)
            corners, score = boxes[:, :-1], boxes[:, -1]
            if late:
                scale = corners.new_tensor(sample.metainfo['scale_factor'])
                corners = corners / scale.repeat(2)
            fields = {'bboxes': corners, 'scores': score, 'labels': labels}
            of_prior = {'probs': scores[rows, :-1], 'priors': rows}
            results.append(InstanceData(**fields, **of_prior))
        return results

    def passes(
        self,
        model: nn.Module,
        feats: Sequence[Tensor],
        samples: Sequence,
        masks: DropoutMasks,
    ) -> Iterator[list[Tensor]]:
        proposals = self._proposals(model, feats, samples, masks.image_ids)
        for maps in dropped_maps(feats, masks):
            raw = _classified(model.roi_head, maps, samples, proposals)
            yield [found.scores for found in raw]

    def _proposals(
        self,
        model: nn.Module,
        feats: Sequence[Tensor],
        samples: Sequence,
        image_ids: Sequence[str],
    ) -> list[InstanceData]:
        outs = model.rpn_head(feats)
        for level in outs[0]:
            refuse_non_finite(level, image_ids)
        metas = [sample.metainfo for sample in samples]
        return model.rpn_head.predict_by_feat(
            *outs, batch_img_metas=metas, rescale=False
        )


def _classified(
    roi: nn.Module,
    feats: Sequence[Tensor],
    samples: Sequence,
    proposals: Sequence[InstanceData],
    rescale: bool = False,
) -> list[InstanceData]:
    """Proposals with ``scores`` (n, K + 1) of all classes, before suppression."""
    metas = [sample.metainfo for sample in samples]
    return roi.predict_bbox(feats, metas, proposals, None, rescale=rescale)
