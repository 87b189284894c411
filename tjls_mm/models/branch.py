"""What trains beside the task: branches on the learner's features."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from tjls_mm.errors import InputError
from tjls_mm.registry import MODELS


@dataclass(frozen=True)
class BranchInputs:
    """What a learner shows its branches of B images.

    Attributes:
        vector: What the task's own last layer says or sees of an image, after the
            bottleneck: class logits of all locations of a detector, pooled features
            of a classifier; (B, D).
        feats: Feature maps that the head was given, one per level, (B, C, H, W); of
            a classifier pooled ones, (B, C).
    """

    vector: Tensor
    feats: tuple[Tensor, ...]

    def rows(self, rows: Tensor) -> 'BranchInputs':
        """The same for some of the images."""
        return BranchInputs(self.vector[rows], tuple(f[rows] for f in self.feats))


class Branch(BaseModule):
    """A network beside the task branch, trained with the learner.

    Its weights are the learner's: one optimiser, one checkpoint. In a config it
    stands under a name of its own, ``method.branches.NAME``.

    Attributes:
        uses_pool: Whether it trains on pool images too. Training then reads the
            pool, and ``loss`` gets all images of a batch; otherwise it gets the
            labelled ones, in the task's own updates.
        provides: Names of the outputs that ``outputs`` returns.

    Args:
        in_features: ``D`` of ``BranchInputs.vector``.
        feat_channels: ``C`` of every level of ``BranchInputs.feats``.
        init_cfg: Initialisation config of MMEngine.
    """

    uses_pool = False
    provides: tuple[str, ...] = ()

    def __init__(
        self,
        in_features: int,
        feat_channels: Sequence[int] = (),
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_features = in_features
        self.feat_channels = tuple(feat_channels)

    @abstractmethod
    def loss(
        self, inputs: BranchInputs, is_labelled: Tensor, samples: Sequence
    ) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            inputs: Of B images.
            is_labelled: (B,), bool.
            samples: Their B data samples; those of pool images hold no labels.

        Returns:
            Scalars by name; those with ``loss`` in their name are summed into the
            objective, the others are logged.
        """

    def outputs(self, inputs: BranchInputs) -> dict[str, Tensor]:
        """Outputs in eval mode: a tensor of leading size B per name of ``provides``."""
        return {}


def add_losses(losses: dict, more: dict) -> None:
    """Add losses of a branch to those of the task and of other branches, in place.

    Raises:
        InputError: If a name is taken: one loss would silently replace the other.
    """
    twice = sorted(losses.keys() & more.keys())
    if twice:
        raise InputError(
            f'Two losses are called {twice[0]!r}: expected a name of its own for every '
            "loss. Rename it in the branch's loss(), or leave one of two equal "
            'branches out of method.branches.'
        )
    losses.update(more)


class JointLearner:
    """Mixin of a head that owns the task branch, a bottleneck and branches.

    Hooks, pool readers and the stage loop know learners by this class only.

    Attributes:
        turn: Whose update is computed: 'task' (of the labelled images, with branches
            that need no pool), 'sampler' (branches that use the pool), or 'joint' for
            the sum of all. Set by AlternatingUpdateHook.
    """

    turn = 'joint'
    bottleneck: nn.Module | None
    branches: nn.ModuleDict

    def build_joint_parts(
        self,
        bottleneck: dict | None,
        branches: dict[str, dict] | None,
        features: int | list[int],
        in_features: int,
        feat_channels: Sequence[int],
    ) -> None:
        """Build bottleneck and branches from their configs; sizes are filled in.

        Args:
            bottleneck, branches: Configs; a branch that is None is left out.
            features: Of the bottleneck, per level where it has several.
            in_features, feat_channels: Of every branch, see ``Branch``.
        """
        self.bottleneck = bottleneck and MODELS.build(
            {**bottleneck, 'features': features}
        )
        self.branches = nn.ModuleDict()
        sizes = {'in_features': in_features, 'feat_channels': tuple(feat_channels)}
        for name, cfg in (branches or {}).items():
            if cfg is not None:
                self.branches[name] = MODELS.build({**sizes, **cfg})

    @property
    def uses_pool(self) -> bool:
        """Whether training reads pool images."""
        return any(branch.uses_pool for branch in self.branches.values())

    @property
    def with_task(self) -> bool:
        """Whether the update at hand is the task's too."""
        return self.turn != 'sampler' or not self.uses_pool

    def branch_losses(self, inputs: BranchInputs, samples: Sequence) -> dict:
        """Losses by name of the branches whose turn it is, of all images of a batch."""
        losses, device = {}, inputs.vector.device
        rows, own = labelled_part(samples, device)
        is_labelled = torch.zeros(len(samples), dtype=torch.bool, device=device)
        is_labelled[rows] = True
        for branch in self.branches.values():
            if branch.uses_pool:
                if self.turn != 'task':
                    add_losses(losses, branch.loss(inputs, is_labelled, samples))
            elif self.with_task and own:
                found = branch.loss(inputs.rows(rows), is_labelled[rows], own)
                add_losses(losses, found)
        return losses

    def branch_outputs(self, inputs: BranchInputs) -> dict[str, Tensor]:
        """Outputs of all branches, by name."""
        outputs = {}
        for branch in self.branches.values():
            outputs.update(branch.outputs(inputs))
        return outputs


def labelled_part(samples: Sequence, device: torch.device) -> tuple[Tensor, list]:
    """Rows of the labelled images of a batch, and their samples.

    A sample that does not say ``is_labelled`` is labelled.
    """
    rows = [i for i, s in enumerate(samples) if s.metainfo.get('is_labelled', True)]
    index = torch.tensor(rows, dtype=torch.long, device=device)
    return index, [samples[row] for row in rows]


def find_joint_learner(model: nn.Module) -> JointLearner | None:
    """The joint learner inside a model (wrapped or not), or None."""
    return next((m for m in model.modules() if isinstance(m, JointLearner)), None)
