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
        vector: (B, D), after the bottleneck: of a detector what a ``ConfidenceVector``
            makes of its class logits, of a classifier its pooled features.
        feats: What the head was given, per level, (B, C, H, W); of a classifier (B, C).
    """

    vector: Tensor
    feats: tuple[Tensor, ...]

    def rows(self, rows: Tensor) -> 'BranchInputs':
        return BranchInputs(self.vector[rows], tuple(f[rows] for f in self.feats))


class Branch(BaseModule):
    """A network beside the task branch, trained with the learner.

    Its weights are the learner's: one optimiser, one checkpoint. In a config it
    stands under a name of its own, ``method.branches.NAME``.

    Attributes:
        uses_pool: Whether ``loss`` gets pool images too (training then reads the
            pool), or the labelled ones only, in the task's own updates.
        provides: Names of what ``outputs`` returns.

    Args:
        in_features: ``D`` of ``BranchInputs.vector``.
        feat_channels: ``C`` of every level of ``BranchInputs.feats``.
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
        """Scalars by name, of B images; ``is_labelled`` is (B,), bool.

        Those with ``loss`` in their name are summed into the objective, the others are
        logged. The samples of pool images hold no labels.
        """

    def outputs(self, inputs: BranchInputs) -> dict[str, Tensor]:
        """Outputs in eval mode: a tensor of leading size B per name of ``provides``."""
        return {}


def add_losses(losses: dict, more: dict) -> None:
    """Add losses of a branch to others in place; a name that is taken is InputError."""
    twice = sorted(losses.keys() & more.keys())
    if twice:
        raise InputError(
            f'Two losses are called {twice[0]!r}: expected different names. Rename one '
            "in the branch's loss(), or leave one of two equal method.branches out."
        )
    losses.update(more)


class JointLearner:
    """Mixin of a detector, or a classifier's head, with a bottleneck and branches.

    Attributes:
        pull: (2,), a buffer: sums over training of the squared gradient of the task
            and of the branches that use the pool, at what both are given.
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
        """Build both from their configs, without branches that are None.

        Sizes are filled in: features of the bottleneck, the others of each ``Branch``.
        """
        cfg = bottleneck and {**bottleneck, 'features': features}
        self.bottleneck = cfg and MODELS.build(cfg)
        self.branches = nn.ModuleDict()
        sizes = {'in_features': in_features, 'feat_channels': tuple(feat_channels)}
        for name, cfg in (branches or {}).items():
            if cfg is not None:
                self.branches[name] = MODELS.build({**sizes, **cfg})

        if self.uses_pool:
            self.register_buffer('pull', torch.zeros(2))

    @property
    def sampler_pull(self) -> float | None:
        """Gradient of branches that use the pool, as a multiple of the task's."""
        if not self.uses_pool or not (self.pull > 0).all():
            return None
        return float((self.pull[1] / self.pull[0]).sqrt())

    def measured(self, side: int, shared: Tensor, rows) -> Tensor:
        """What the task (side 0) or the branches (1) are given, (B, ...).

        The gradient that comes back of the ``rows`` of labelled images is noted.
        """
        if not self.uses_pool or not (self.training and shared.requires_grad):
            return shared
        view = shared.view_as(shared)

        def note(gradient: Tensor) -> None:
            square = gradient[rows].float().square().sum()
            with torch.no_grad():
                # Gradients that overflow are of a step that AMP leaves out.
                self.pull[side] += square.nan_to_num(0.0, 0.0, 0.0)

        view.register_hook(note)
        return view

    @property
    def uses_pool(self) -> bool:
        """Whether training reads pool images."""
        return any(branch.uses_pool for branch in self.branches.values())

    @property
    def with_task(self) -> bool:
        """Whether the update at hand is the task's too."""
        return self.turn != 'sampler' or not self.uses_pool

    def branch_losses(self, inputs: BranchInputs, samples: Sequence) -> dict:
        """Losses of the branches whose turn it is, of all images of a batch."""
        losses, device = {}, inputs.vector.device
        rows, own = labelled_part(samples, device)
        is_labelled = torch.zeros(len(samples), dtype=torch.bool, device=device)
        is_labelled[rows] = True
        for branch in self.branches.values():
            if branch.uses_pool:
                if self.turn != 'task':
                    add_losses(losses, branch.loss(inputs, is_labelled, samples))
            elif self.with_task and own:
                part = inputs.rows(rows)
                add_losses(losses, branch.loss(part, is_labelled[rows], own))
        return losses

    def branch_outputs(self, inputs: BranchInputs) -> dict[str, Tensor]:
        """Outputs of all branches, by name."""
        found = (branch.outputs(inputs) for branch in self.branches.values())
        return {name: x for outputs in found for name, x in outputs.items()}


def labelled_part(samples: Sequence, device: torch.device) -> tuple[Tensor, list]:
    """Rows of the images that do not say ``is_labelled=False``, and their samples."""
    rows = [i for i, s in enumerate(samples) if s.metainfo.get('is_labelled', True)]
    index = torch.tensor(rows, dtype=torch.long, device=device)
    return index, [samples[row] for row in rows]


def find_joint_learner(model: nn.Module) -> JointLearner | None:
    """The joint learner inside a model (wrapped or not), or None."""
    return next((m for m in model.modules() if isinstance(m, JointLearner)), None)
