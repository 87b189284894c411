"""SSD head with a batch bottleneck on its confidences and a discriminator."""

import math
from collections.abc import Sequence

import torch
from mmdet.models.dense_heads import SSDHead
from mmdet.models.utils import unpack_gt_instances
from mmdet.utils import reduce_mean
from mmengine.dist import get_world_size
from torch import Tensor

from tjls_mm.models.joint_learner import JointLearner
from tjls_mm.registry import MODELS


@MODELS.register_module()
class JointSSDHead(JointLearner, SSDHead):
    """SSDHead whose confidences also tell labelled from pool images.

    Each data sample of a training batch says by its metainfo ``is_labelled``
    whether it may enter the task loss; a sample that does not say so is labelled,
    so that the head trains on any data set of mmdet.

    Args:
        anchor_generator: Config of an SSDAnchorGenerator.
        bottleneck: Config of a batch bottleneck on the confidence maps, e.g.
            ``dict(type='tjls_mm.BatchTransformer')`` (TJLS), or None (JLS). Its
            ``features`` are filled in.
        discriminator: Config of the discriminator, e.g.
            ``dict(type='tjls_mm.DiscriminatorHead')``, or None for plain SSD. Its
            ``in_features`` is filled in.
        featmap_sizes: (height, width) of the map of each level. By default
            ⌈input size / stride⌉ of the anchor generator.
        **kwargs: Of mmdet's SSDHead.

    Source: TJLS, Sec. 3 and 4.2.
    """

    def __init__(
        self,
        *args,
        anchor_generator: dict,
        bottleneck: dict | None = None,
        discriminator: dict | None = None,
        featmap_sizes: Sequence[tuple[int, int]] | None = None,
        **kwargs,
    ) -> None:
        super().__init__(*args, anchor_generator=anchor_generator, **kwargs)
        # mmdet's SSDHead cannot predict without it (open-mmlab/mmdetection#11780).
        self.loss_cls = MODELS.build(
            dict(type='mmdet.CrossEntropyLoss', use_sigmoid=False)
        )
        channels = [n * self.cls_out_channels for n in self.num_base_priors]
        self.featmap_sizes = [
            tuple(size)
            for size in featmap_sizes
            or self._sizes_from_strides(anchor_generator['input_size'])
        ]
        self.bottleneck = bottleneck and MODELS.build(
            {**bottleneck, 'features': channels}
        )
        n_confidences = sum(
            c * h * w for c, (h, w) in zip(channels, self.featmap_sizes, strict=True)
        )
        self.discriminator = discriminator and MODELS.build(
            {**discriminator, 'in_features': n_confidences}
        )

    def _sizes_from_strides(self, input_size: int) -> list[tuple[int, int]]:
        return [
            (math.ceil(input_size / stride_h), math.ceil(input_size / stride_w))
            for stride_w, stride_h in self.prior_generator.strides
        ]

    def confidences(self, x: Sequence[Tensor]) -> list[Tensor]:
        """Confidence maps after the bottleneck.

        Args:
            x: Features of each level, (B, C, H, W).

        Returns:
            Class logits of each level, (B, A * (K + 1), H, W), ``A`` priors per
            location, ``K`` classes and the background.
        """
        maps = [conv(f) for f, conv in zip(x, self.cls_convs, strict=True)]
        return maps if self.bottleneck is None else self.bottleneck(maps)

    def forward(self, x: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Confidences after the bottleneck, and box deltas.

        Args:
            x: Features of each level, (B, C, H, W).

        Returns:
            Class logits (B, A * (K + 1), H, W) and box deltas (B, A * 4, H, W) of
            each level.
        """
        deltas = [conv(f) for f, conv in zip(x, self.reg_convs, strict=True)]
        return self.confidences(x), deltas

    def loss(self, x: Sequence[Tensor], batch_data_samples: list) -> dict:
        """Losses of the update at hand (see ``turn``).

        Args:
            x: Features of each level, (B, C, H, W).
            batch_data_samples: One DetDataSample per image.

        Returns:
            ``loss_cls`` and ``loss_bbox`` over the labelled images (task update),
            ``loss_sampler`` and ``sampler_acc`` over all images (sampler update),
            or all of them (joint update).
        """
        is_labelled = [s.metainfo.get('is_labelled', True) for s in batch_data_samples]
        with_task = self.discriminator is None or self.turn != 'sampler'
        if not with_task:
            return self._sampler_loss(self.confidences(x), is_labelled)
        conf, deltas = self(x)
        losses = self._task_loss(conf, deltas, batch_data_samples, is_labelled)
        if self.discriminator is not None and self.turn != 'task':
            losses.update(self._sampler_loss(conf, is_labelled))
        return losses

    def _task_loss(self, conf, deltas, samples, is_labelled) -> dict:
        if not all(is_labelled):
            rows = torch.tensor(is_labelled, device=conf[0].device).nonzero()[:, 0]
            conf = [c[rows] for c in conf]
            deltas = [d[rows] for d in deltas]
            samples = [
                s for s, known in zip(samples, is_labelled, strict=True) if known
            ]
        if not samples:
            return {}  # a batch of pool images only
        gt, ignored, metas = unpack_gt_instances(samples)
        return self.loss_by_feat(conf, deltas, gt, metas, ignored)

    def get_targets(self, *args, **kwargs) -> tuple:
        """Targets of mmdet's AnchorHead, normalised over all processes.

        The task loss is divided by the number of positive priors. Counted over
        all processes, several that share a batch compute the loss of one.
        """
        targets = super().get_targets(*args, **kwargs)
        if get_world_size() == 1:
            return targets
        count = torch.tensor(float(targets[4]), device=targets[0][0].device)
        return (*targets[:4], reduce_mean(count).item(), *targets[5:])

    def _sampler_loss(self, conf: list[Tensor], is_labelled: list[bool]) -> dict:
        targets = torch.tensor(is_labelled, device=conf[0].device)
        return self.discriminator.loss(self._logits(conf), targets)

    def _logits(self, conf: list[Tensor]) -> Tensor:
        sizes = [tuple(c.shape[-2:]) for c in conf]
        if sizes != self.featmap_sizes:
            raise ValueError(
                f'The confidence maps are of size {sizes}, the discriminator was '
                f'built for {self.featmap_sizes}: resize every image to the '
                "anchor generator's input_size without keeping the ratio, or set "
                'bbox_head.featmap_sizes.'
            )
        return self.discriminator(torch.cat([c.flatten(1) for c in conf], 1))

    def pool_outputs(self, feats: Sequence[Tensor], names: Sequence[str]) -> dict:
        """Outputs per image that query strategies ask for.

        Args:
            feats: Features of each level, (B, C, H, W).
            names: Of 'logit': the discriminator's logit of being labelled, (B,).

        Returns:
            One tensor of leading size B per name.

        Raises:
            KeyError: If a name is not one of the above, or the head has no
                discriminator.
        """
        unknown = set(names) - {'logit'}
        if unknown or self.discriminator is None:
            raise KeyError(
                f'JointSSDHead cannot provide {sorted(unknown) or "logit"}: it '
                "provides 'logit', and that with a discriminator only."
            )
        return {'logit': self._logits(self.confidences(feats))}
