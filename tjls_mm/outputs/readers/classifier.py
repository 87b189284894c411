"""Outputs of mmpretrain's classifiers."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.models import ImageClassifier
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor, nn

from tjls_mm.outputs.vocabulary import PASS_NAMES
from tjls_mm.registry import POOL_READERS

from .base import DropoutMasks, PoolReader, branch_names, entropy, read_branches


@POOL_READERS.register_module()
class ClassifierReader(PoolReader):
    """ImageClassifier with LinearClsHead or JointClsHead.

    Stochastic passes drop what the class layer sees.
    """

    def fits(self, model: nn.Module) -> bool:
        head = getattr(model, 'head', None)
        return isinstance(model, ImageClassifier) and isinstance(head, LinearClsHead)

    def provides(self, model: nn.Module) -> tuple[str, ...]:
        return ('probability', 'feature', *PASS_NAMES, *branch_names(model.head))

    def other_family(self, name: str) -> str:
        return f'{name!r} is of detectors; a classifier has probability and feature'

    def read(
        self, model: nn.Module, data: dict, names: Sequence[str], masks: DropoutMasks
    ) -> dict[str, Tensor]:
        head = model.head
        feats = model.extract_feat(data['inputs'])
        feature = head.pre_logits(feats)
        outputs = {}
        if set(names) & set(branch_names(head)):
            inputs = head.branch_inputs(feats, feature)
            outputs.update(read_branches(head, inputs, names))
        outputs['probability'] = F.softmax(head.fc(feature), dim=1)
        outputs['feature'] = feature
        if set(names) & set(PASS_NAMES):
            factors = masks.draw(feature.shape[1], feature.device)
            probability = torch.stack(
                [F.softmax(head.fc(feature * f), dim=1) for f in factors], 1
            )  # (B, T, K)
            total, single = entropy(probability.mean(1)), entropy(probability).mean(1)
            outputs['pass_probability'] = probability
            outputs['predictive_entropy'] = total
            # Rounding may leave a difference of nothing below 0.
            outputs['mutual_information'] = (total - single).clamp(0)
        return {name: value for name, value in outputs.items() if name in names}
