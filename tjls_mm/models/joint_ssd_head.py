"""SSD head with a batch bottleneck on its confidences, and branches on them."""

import math
from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.utils import unpack_gt_instances
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor

from tjls_mm.models.branch import BranchInputs, JointLearner, add_losses, labelled_part
from tjls_mm.registry import MODELS


@MODELS.register_module()
class JointSSDHead(JointLearner, SSDHead):
    """SSDHead whose confidences also serve what trains beside the task.

    Images whose metainfo says ``is_labelled=False`` do not enter the task loss.

    Args:
        anchor_generator: Config of an SSDAnchorGenerator.
        bottleneck: Config of a batch bottleneck on the confidence maps, e.g.
            ``dict(type='tjls_mm.BatchTransformer')`` (TJLS), or None (JLS).
        branches: Name to config of what trains beside the task, e.g.
            ``dict(discriminator=dict(type='tjls_mm.DiscriminatorHead'))``.
        featmap_sizes: (height, width) per level, by default ⌈input size / stride⌉.
        **kwargs: Of mmdet's SSDHead.

    Source: TJLS, Sec. 3 and 4.2.
    """

    def __init__(
        self,
        *args,
        anchor_generator: dict,
        bottleneck: dict | None = None,
        branches: dict[str, dict] | None = None,
        featmap_sizes: Sequence[tuple[int, int]] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(*args, anchor_generator=anchor_generator, **kwargs)
        channels = [n * self.cls_out_channels for n in self.num_base_priors]
        sizes = featmap_sizes or [
            [math.ceil(anchor_generator['input_size'] / s) for s in reversed(strides)]
            for strides in self.prior_generator.strides  # (across, down)
        ]
        self.featmap_sizes = [tuple(size) for size in sizes]
        maps = zip(channels, self.featmap_sizes, strict=True)
        width = sum(c * h * w for c, (h, w) in maps)
        self.build_joint_parts(bottleneck, branches, channels, width, self.in_channels)

    def confidences(self, x: Sequence[Tensor]) -> list[Tensor]:
        """Class logits after the bottleneck from features (B, C, H, W), of each level.

        (B, A * (K + 1), H, W): ``A`` priors, ``K`` classes and the background.
        """
        maps = [conv(f) for f, conv in zip(x, self.cls_convs, strict=True)]
        return maps if self.bottleneck is None else self.bottleneck(maps)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """See ``confidences``; and box deltas (B, A * 4, H, W) of each level."""
        deltas = [conv(f) for f, conv in zip(x, self.reg_convs, strict=True)]
        return self.confidences(x), deltas

    def branch_inputs(
        self, x: Sequence[Tensor], conf: Sequence[Tensor]
    ) -> BranchInputs:
        """All ``confidences`` of an image, and the features.

        Maps of other sizes than the branches were built for are a ValueError.
        """
        sizes = [tuple(c.shape[-2:]) for c in conf]
        if sizes != self.featmap_sizes:
            raise ValueError(
                f'The confidence maps are of size {sizes}, expected '
                f'{self.featmap_sizes}: resize every image to input_size with '
                'keep_ratio=False, or set bbox_head.featmap_sizes.'
            )
        return BranchInputs(torch.cat([c.flatten(1) for c in conf], 1), tuple(x))

    def loss(self, x: Sequence[Tensor], batch_data_samples: list) -> dict:
        """Losses of the update at hand, see ``turn``; the task's are mmdet's."""
        losses = {}
        if self.with_task:
            conf, deltas = self(x)
            losses = self._task_loss(conf, deltas, batch_data_samples)
        else:
            conf = self.confidences(x)
        if self.branches:
            inputs = self.branch_inputs(x, conf)
            add_losses(losses, self.branch_losses(inputs, batch_data_samples))
        return losses

    def _task_loss(self, conf, deltas, samples) -> dict:
        rows, own = labelled_part(samples, conf[0].device)
        if not own:
            return {}  # a batch of pool images only
        if len(own) < len(samples):
            conf, deltas = ([level[rows] for level in maps] for maps in (conf, deltas))
        gt, ignored, metas = unpack_gt_instances(own)
        return self.loss_by_feat(conf, deltas, gt, metas, ignored)

    def get_targets(self, *args, **kwargs) -> tuple:
        """Targets of mmdet's AnchorHead, with the positive priors of all processes.

        The task loss is divided by their number: processes share one batch.
        """
        targets = super().get_targets(*args, **kwargs)
        if get_world_size() == 1:
            return targets
        count = torch.tensor(float(targets[4]), device=targets[0][0].device)
        return (*targets[:4], reduce_mean(count).item(), *targets[5:])
