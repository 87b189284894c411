"""Features of a pretrained backbone beside the learner."""

from collections.abc import Sequence

from torch import Tensor, nn

from tjls_mm.models.pretrained_features import PretrainedFeatures
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE
from tjls_mm.registry import POOL_READERS

from .base import DropoutMasks, PoolReader


@POOL_READERS.register_module()
class PretrainedReader(PoolReader):
    """PretrainedFeatures, which is no learner and says nothing else."""

    def fits(self, model: nn.Module) -> bool:
        return isinstance(model, PretrainedFeatures)

    def provides(self, model: nn.Module) -> tuple[str, ...]:
        return (PRETRAINED_FEATURE,)

    def other_family(self, name: str) -> str:
        return f'{name!r} is of learners; a pretrained backbone has features only'

    def read(
        self, model: nn.Module, data: dict, names: Sequence[str], masks: DropoutMasks
    ) -> dict[str, Tensor]:
        return {PRETRAINED_FEATURE: model(data['inputs'])}
