"""Outputs of detection transformers."""

import contextlib
from collections.abc import Iterator, Sequence
from inspect import signature
from unittest import mock

from mmdet.models.dense_heads import DeformableDETRHead, DETRHead
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmengine.structures import InstanceData
from torch import Tensor, nn

from tjls_mm.registry import POOL_READERS

from .base import DropoutMasks
from .detector import DetectorReader, refuse_non_finite


@POOL_READERS.register_module()
class QueryReader(DetectorReader):
    """DETR, Conditional, DAB, Deformable DETR, DINO and relatives.

    Priors are the queries of an image. Stochastic passes drop channels of the encoded
    image that the decoder looks at; where queries are chosen by the encoder, they are
    those of the whole one.
    """

    def fits(self, model: nn.Module) -> bool:
        head = type(getattr(model, 'bbox_head', None))
        known = (DETRHead.predict_by_feat, DeformableDETRHead.predict_by_feat)
        return (
            isinstance(model, DetectionTransformer)
            and getattr(head, 'predict_by_feat', None) in known
            and head._predict_by_feat_single is DETRHead._predict_by_feat_single
        )

    def multi_label(self, model: nn.Module) -> bool:
        return model.bbox_head.loss_cls.use_sigmoid

    def boxes(
        self,
        model: nn.Module,
        feats: Sequence[Tensor],
        samples: Sequence,
        image_ids: Sequence[str],
    ) -> list[InstanceData]:
        head = model.bbox_head
        given = model.forward_transformer(feats, samples)
        with _listening(head) as heard:
            found = head.predict(**given, batch_data_samples=samples, rescale=True)
        logits = heard[-1][0][-1]  # (B, queries, C)
        refuse_non_finite(logits, image_ids)
        for own, results in zip(logits, found, strict=True):
            # The same as in the head's own choice.
            if self.multi_label(model):
                probs = own.sigmoid()
                chosen = probs.view(-1).topk(len(results)).indices
                rows = chosen // head.num_classes
            else:
                probs = own.softmax(-1)[..., :-1]
                rows = probs.max(-1).values.topk(len(results)).indices
            results.probs, results.priors = probs[rows], rows
        return found

    def passes(
        self,
        model: nn.Module,
        feats: Sequence[Tensor],
        samples: Sequence,
        masks: DropoutMasks,
    ) -> Iterator[list[Tensor]]:
        decode, decoder_inputs = model.forward_decoder, {}

        def recording(**kwargs):
            decoder_inputs.update(kwargs)
            return decode(**kwargs)

        with mock.patch.object(model, 'forward_decoder', recording):
            given = model.forward_transformer(feats, samples)
        memory = decoder_inputs.pop('memory')  # (B, locations, channels)
        names = signature(model.bbox_head.forward).parameters
        for factors in masks.draw(memory.shape[-1], memory.device):
            given.update(decode(memory=memory * factors[:, None], **decoder_inputs))
            outs = model.bbox_head(**{name: given[name] for name in names})
            logits = outs[0][-1]
            sigmoid = self.multi_label(model)
            yield list(logits.sigmoid() if sigmoid else logits.softmax(-1))


@contextlib.contextmanager
def _listening(head: nn.Module) -> Iterator[list]:
    """What a head returns, call by call."""
    heard = []
    handle = head.register_forward_hook(lambda _, args, outs: heard.append(outs))
    try:
        yield heard
    finally:
        handle.remove()
