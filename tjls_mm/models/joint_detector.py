"""Joint learning for any detector of mmdet: its own loss, with two taps."""

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from inspect import signature

import torch
from mmdet.models.dense_heads import AnchorHead
from mmdet.models.detectors.base_detr import DetectionTransformer
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor, nn

from tjls_mm.models.branch import BranchInputs, JointLearner, add_losses
from tjls_mm.models.confidence_taps import ConfidenceTap, find_tap, first_images
from tjls_mm.models.confidence_vectors import valid_fractions
from tjls_mm.registry import MODELS


@MODELS.register_module()
def JointDetector(
    detector: str,
    bottleneck: Mapping | None = None,
    branches: Mapping[str, Mapping | None] | None = None,
    vector: Mapping | None = None,
    **kwargs,
) -> nn.Module:
    """A detector of mmdet whose confidences serve what trains beside the task, too.

    Backbone, neck and confidence head run once over labelled and pool images; the task
    loss is mmdet's own, of the labelled ones. Images whose metainfo says
    ``is_labelled=False`` do not enter it, nor does anything of their annotations.

    Args:
        detector: Type of the detector, e.g. ``'RetinaNet'``.
        bottleneck: Config of a batch bottleneck on the confidences, e.g.
            ``dict(type='tjls_mm.BatchTransformer')`` (TJLS), or None (JLS).
        branches: Name to config of what trains beside the task, e.g.
            ``dict(discriminator=dict(type='tjls_mm.DiscriminatorHead'))``.
        vector: Config of the vector that branches see, ``tjls_mm.ConfidenceStats``.
        **kwargs: Of the detector.

    Returns:
        With a bottleneck or a branch an instance of ``JointDetectorMixin`` and of the
        detector's class, else mmdet's detector itself.

    Raises:
        InputError: If the confidences of the detector cannot be reached.

    Source: TJLS, Sec. 3 and 4.2, for SSD.
    """
    with MODELS.switch_scope_and_registry(None) as registry:  # as MMEngine's build
        cls = registry.get(detector)
    if cls is None:
        raise KeyError(f'{detector} is not in the {MODELS.name} registry')
    branches = {name: cfg for name, cfg in (branches or {}).items() if cfg is not None}
    if not bottleneck and not branches:
        return cls(**kwargs)
    parts = {'bottleneck': bottleneck, 'branches': branches, 'vector': vector}
    return joint_class(cls)(**parts, **kwargs)


@functools.cache
def joint_class(cls: type) -> type:
    """The class of a detector with joint learning; a joint class is returned as is."""
    if issubclass(cls, JointDetectorMixin):
        return cls
    is_query = issubclass(cls, DetectionTransformer)
    mixin = JointQueryMixin if is_query else JointDetectorMixin
    return type(f'Joint{cls.__name__}', (mixin, cls), {})


@dataclass
class Pass:
    """A pass of images through a joint detector, and what was seen of it.

    Attributes:
        samples: Of all images, labelled ones first.
        order: Their rows in the loader's batch, or None.
        n_labelled: How many there are of an update, else 0.
        n_task: How many first images the head returns, 0 for all.
        feats: What the head was given, per level.
        maps: Confidences after the bottleneck, per level.
    """

    samples: Sequence
    order: Tensor | None = None
    n_labelled: int = 0
    n_task: int = 0
    feats: Sequence[Tensor] = ()
    maps: list[Tensor] = field(default_factory=list)


class JointDetectorMixin(JointLearner):
    """Mixin before a detector's class, see ``JointDetector``."""

    def __init__(
        self, *args, bottleneck=None, branches=None, vector=None, **kwargs
    ) -> None:
        super().__init__(*args, **kwargs)
        self._pass: Pass | None = None
        self.tap = self.build_tap(kwargs)
        # The task starts from the weights of the plain detector.
        with torch.random.fork_rng(devices=[]):
            vector = vector or {'type': 'tjls_mm.ConfidenceStats'}
            sizes = {'channels': self.tap.channels, 'sizes': self.tap.sizes}
            self.vector = MODELS.build({**sizes, **vector}) if branches else None
            self.build_joint_parts(
                bottleneck,
                branches,
                self.tap.channels,
                self.vector.out_features if branches else 0,
                self.tap.feat_channels,
            )
        _share_positives(self.confidence_head)
        self.confidence_head.register_forward_hook(self._on_confidences)

    def build_tap(self, config: Mapping) -> ConfidenceTap:
        """Where the confidences are; ``config`` holds the detector's arguments."""
        return find_tap(self, config)

    @property
    def confidence_head(self) -> nn.Module:
        """The module whose first output are the confidences."""
        return self.tap.head

    @contextlib.contextmanager
    def watching(self, samples: Sequence) -> Iterator[Pass]:
        """Note features and confidences of the passes inside."""
        self._pass = Pass(samples)
        try:
            yield self._pass
        finally:
            self._pass = None

    def _on_confidences(self, head: nn.Module, args: tuple, outs: tuple) -> tuple:
        seen = self._pass or Pass(())
        maps = self.tap.read(outs)
        if self.bottleneck is not None:
            maps = self._mix(maps, seen)
            outs = self.tap.write(outs, maps)
        # Only of an update are there labelled images in front.
        if seen.n_labelled and self.uses_pool:
            front = slice(seen.n_labelled)
            seen.maps = [self.measured(1, level, front) for level in maps]
            if self.tap.is_lossless:
                maps = [self.measured(0, level, front) for level in maps]
                outs = self.tap.write(outs, maps)
        else:
            seen.maps = maps
        return self.tap.first(outs, seen.n_task) if seen.n_task else outs

    def _mix(self, maps: Sequence[Tensor], seen: Pass) -> list[Tensor]:
        valid = valid_fractions(seen.samples)
        if seen.order is None:
            return self.bottleneck(maps, valid)
        # In the order of the loader: a slot of the batch must not tell membership.
        inverse = seen.order.argsort()
        if valid is not None:
            valid = [valid[row] for row in inverse.tolist()]
        mixed = self.bottleneck([level[inverse] for level in maps], valid)
        return [level[seen.order] for level in mixed]

    def extract_feat(self, batch_inputs: Tensor) -> Sequence[Tensor]:
        """See the detector."""
        feats = super().extract_feat(batch_inputs)
        if self._pass is not None:
            self._pass.feats = feats
        return feats

    def loss(self, batch_inputs: Tensor, batch_data_samples: Sequence) -> dict:
        """Losses of the update at hand, see ``turn``; the task's are mmdet's.

        Args:
            batch_inputs: (B, 3, H, W).
            batch_data_samples: Those of pool images may hold annotations, which are
                not looked at.
        """
        known = [s.metainfo.get('is_labelled', True) for s in batch_data_samples]
        order = sorted(range(len(known)), key=lambda row: not known[row])
        samples = [batch_data_samples[row] for row in order]
        n = sum(known)
        samples[n:] = [without_truth(sample) for sample in samples[n:]]
        losses = {}
        with self.watching(samples) as seen:
            seen.n_labelled = n
            if n < len(known):
                seen.order = torch.tensor(order, device=batch_inputs.device)
                batch_inputs = batch_inputs[seen.order]
            if n and self.with_task:
                seen.n_task = n if n < len(known) else 0
                losses.update(super().loss(batch_inputs, samples[:n]))
            else:
                self.confidences(self.extract_feat(batch_inputs), samples)
        if self.branches:
            inputs = self.branch_inputs(seen)
            add_losses(losses, self.branch_losses(inputs, samples))
        return losses

    def confidences(self, feats: Sequence[Tensor], samples: Sequence) -> tuple:
        """What the confidence head makes of features."""
        return self.confidence_head(feats)

    def branch_inputs(self, seen: Pass) -> BranchInputs:
        """What branches see of the images of a pass."""
        vector = self.vector(seen.maps, valid_fractions(seen.samples))
        return BranchInputs(vector, tuple(seen.feats))

    def outputs_of(self, batch_inputs: Tensor, samples: Sequence) -> dict[str, Tensor]:
        """Outputs of all branches for images, by name."""
        with self.watching(samples) as seen:
            self.confidences(self.extract_feat(batch_inputs), samples)
        return self.branch_outputs(self.branch_inputs(seen))

    def predict(self, batch_inputs: Tensor, batch_data_samples: Sequence, **kwargs):
        """See the detector."""
        with self.watching(batch_data_samples):
            return super().predict(batch_inputs, batch_data_samples, **kwargs)

    def _forward(self, batch_inputs: Tensor, batch_data_samples=None) -> tuple:
        # mode='tensor', which fills a context bank. mmdet's own calls head.forward,
        # which passes by hooks.
        samples = batch_data_samples or ()
        with self.watching(samples):
            return self.confidences(self.extract_feat(batch_inputs), samples)


class JointQueryMixin(JointDetectorMixin):
    """The same before a detection transformer."""

    def forward_transformer(
        self, img_feats: Sequence[Tensor], batch_data_samples: Sequence | None = None
    ) -> dict:
        """Of all images of a pass, whosever samples are given."""
        seen = self._pass
        samples = batch_data_samples if seen is None else seen.samples
        outs = super().forward_transformer(img_feats, samples)
        if seen is not None and seen.n_task:
            # Candidates of the encoder go to the loss past the head.
            candidates = [key for key in outs if key.startswith('enc_')]
            outs.update((k, first_images(outs[k], seen.n_task)) for k in candidates)
        return outs

    def confidences(self, feats: Sequence[Tensor], samples: Sequence) -> tuple:
        given = self.forward_transformer(feats, samples)
        names = signature(self.bbox_head.forward).parameters
        return self.bbox_head(**{name: given[name] for name in names})


def without_truth(sample):
    """A copy of a sample without annotated boxes."""
    sample = sample.clone()
    for name in ('gt_instances', 'ignored_instances'):
        if name in sample:
            setattr(sample, name, sample.get(name)[:0])
    return sample


def _share_positives(head: nn.Module) -> None:
    """Let the loss of a plain anchor head count the positive priors of all processes.

    It is divided by their number, and processes share one batch; mmdet's later heads
    do so themselves.
    """
    if isinstance(head, AnchorHead):
        if type(head).get_targets is AnchorHead.get_targets:
            head.get_targets = functools.partial(_targets_of_all, head.get_targets)


def _targets_of_all(get_targets, *args, **kwargs) -> tuple:
    targets = get_targets(*args, **kwargs)
    if get_world_size() == 1:
        return targets
    count = torch.tensor(float(targets[4]), device=targets[0][0].device)
    return (*targets[:4], reduce_mean(count).item(), *targets[5:])
