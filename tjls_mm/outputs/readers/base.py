"""What a reader of pool outputs is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tjls_mm.models.branch import BranchInputs, JointLearner
from tjls_mm.outputs.vocabulary import VOCABULARY
from tjls_mm.randomness import generator
from tjls_mm.registry import POOL_READERS


@dataclass(frozen=True)
class DropoutMasks:
    """Dropout of stochastic passes that depends on image and seed alone.

    Attributes:
        image_ids: Of the B images of a batch.
        passes: ``T``.
        dropout: Probability that a pass drops a feature, in [0, 1).
    """

    image_ids: Sequence[str]
    passes: int
    dropout: float
    seed: int

    def draw(self, width: int, device: torch.device) -> Tensor:
        """Factors (T, B, width) of features: 0, or 1 / (1 - dropout), of mean 1."""
        own = (generator(self.seed, 'passes', i) for i in self.image_ids)
        draws = np.stack([rng.random((self.passes, width)) for rng in own], axis=1)
        kept = torch.from_numpy(draws >= self.dropout)
        return kept.to(device).float() / (1 - self.dropout)


class PoolReader(ABC):
    """Says of a family of learners what they provide, and reads it; without state.

    A learner that no reader fits can do all but provide outputs. Register your own
    reader in POOL_READERS and list it in the config's ``custom_imports``.
    """

    @abstractmethod
    def fits(self, model: nn.Module) -> bool:
        """Whether a model is of this family."""

    @abstractmethod
    def provides(self, model: nn.Module) -> tuple[str, ...]:
        """Names of the outputs that can be had, by what the model is built of."""

    @abstractmethod
    def read(
        self, model: nn.Module, data: dict, names: Sequence[str], masks: DropoutMasks
    ) -> dict[str, Tensor | list]:
        """Outputs of B images, from one forward pass of the backbone.

        Args:
            model: In eval mode.
            data: ``inputs`` and ``data_samples`` of its data preprocessor.
            names: Some of ``provides``.
            masks: Of the stochastic passes.

        Returns:
            By name a tensor of leading size B; ``boxes`` and ``flip_boxes``: a list of
            B InstanceData with ``bboxes`` (m, 4), ``scores`` (m,), ``labels`` (m,),
            ``probs`` (m, K) and ``priors`` (m,); ``box_feature``: a list of B tensors
            (m, F).
        """

    def remedy(self, name: str) -> str:
        """What to write in the config to get a missing output, as half a sentence."""
        if name == 'logit':
            return (
                'add the discriminator with method.branches=dict(discriminator='
                "dict(type='tjls_mm.DiscriminatorHead')) or "
                "_base_ = '_base_/methods/tjls.py'"
            )
        if name in VOCABULARY:
            return self.other_family(name)
        return (
            f'{name!r} is none of {", ".join(VOCABULARY)}; write a branch with '
            f"provides = ({name!r},), in method.branches=dict(NAME=dict(type='...'))"
        )

    @abstractmethod
    def other_family(self, name: str) -> str:
        """Why a name of the vocabulary is not to be had, and what is instead."""


def find_reader(model: nn.Module) -> PoolReader | None:
    """The reader of a built model, or None; the one registered last comes first."""
    POOL_READERS.import_from_location()
    readers = (cls() for cls in reversed(POOL_READERS.module_dict.values()))
    return next((reader for reader in readers if reader.fits(model)), None)


def no_reader(model: nn.Module) -> str:
    """What to write where no reader fits a model, as a sentence without full stop."""
    return (
        f'no pool reader knows {type(model).__name__} with such a head: write a '
        'subclass of tjls_mm.outputs.readers.PoolReader that does, register it in '
        'tjls_mm.registry.POOL_READERS and list its module in custom_imports'
    )


def branch_names(learner: nn.Module) -> tuple[str, ...]:
    """Outputs that the branches of a joint learner provide; of others none."""
    branches = learner.branches.values() if isinstance(learner, JointLearner) else ()
    return tuple(dict.fromkeys(name for b in branches for name in b.provides))


def read_branches(
    learner: JointLearner, inputs: BranchInputs, names: Sequence[str]
) -> dict[str, Tensor]:
    """Outputs of those branches of a joint learner that are asked for."""
    outputs = {}
    for branch in learner.branches.values():
        if set(branch.provides) & set(names):
            found = branch.outputs(inputs)
            outputs.update({n: found[n] for n in branch.provides if n in names})
    return outputs


def entropy(probability: Tensor) -> Tensor:
    """Entropy over the last axis, in nats."""
    return torch.special.entr(probability).sum(-1)


def binary_entropy(probability: Tensor) -> Tensor:
    """Sum over the last axis of the entropies of yes-or-no questions, in nats."""
    return entropy(probability) + entropy(1 - probability)
