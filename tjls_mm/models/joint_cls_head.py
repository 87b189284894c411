"""Linear classification head with a batch bottleneck and branches."""

from collections.abc import Sequence

import torch
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor

from tjls_mm.models.branch import BranchInputs, JointLearner
from tjls_mm.registry import MODELS


@MODELS.register_module()
class JointClsHead(JointLearner, LinearClsHead):
    """LinearClsHead whose features also serve what trains beside the task.

    It stands in an ``ImageClassifier`` of mmpretrain after any backbone and global
    pooling. Each data sample of a training batch says by its metainfo
    ``is_labelled`` whether it may enter the task loss; a sample that does not say
    so is labelled, so that the head trains on any data set of mmpretrain.

    Args:
        bottleneck: Config of a batch bottleneck on the pooled features, e.g.
            ``dict(type='tjls_mm.BatchTransformer')`` (TJLS) or
            ``dict(type='tjls_mm.BatchGCN')``, or None (JLS). Its ``features`` are
            filled in.
        branches: Name to config of what trains beside the task, e.g.
            ``dict(discriminator=dict(type='tjls_mm.DiscriminatorHead',
            hidden_features=(512,)))``.
        init_cfg: Initialisation config of MMEngine. By default that of
            LinearClsHead for its own layer; bottleneck and discriminator keep
            theirs.
        **kwargs: Of mmpretrain's LinearClsHead.

    Source: TJLS, Sec. 3 and 4.1.
    """

    def __init__(
        self,
        *args,
        bottleneck: dict | None = None,
        branches: dict[str, dict] | None = None,
        init_cfg: dict | list | None = None,
        **kwargs,
    ) -> None:
        # LinearClsHead's own config would reach every linear layer below it.
        default = dict(type='Normal', std=0.01, override=dict(name='fc'))
        super().__init__(*args, init_cfg=init_cfg or default, **kwargs)
        self.build_joint_parts(
            bottleneck, branches, self.in_channels, self.in_channels, [self.in_channels]
        )

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """Features after the bottleneck.

        Args:
            feats: Pooled features of each stage of the backbone; the last one,
                (B, F), is used.

        Returns:
            What class layer and discriminator see, (B, F).
        """
        features = super().pre_logits(feats)
        return features if self.bottleneck is None else self.bottleneck(features)

    def branch_inputs(self, feats: Sequence[Tensor], features: Tensor) -> BranchInputs:
        """What branches see: the last stage's features before and after the bottleneck.

        Args:
            feats: Pooled features of each stage of the backbone, (B, F).
            features: Of ``pre_logits``, (B, F).
        """
        return BranchInputs(features, (feats[-1],))

    def loss(self, feats: Sequence[Tensor], data_samples: list, **kwargs) -> dict:
        """Losses of the update at hand (see ``turn``).

        Args:
            feats: Pooled features of each stage of the backbone, (B, F).
            data_samples: One DataSample per image.
            **kwargs: Of the loss module.

        Returns:
            ``loss_cls`` over the labelled images where the task is updated, and the
            losses of the branches whose turn it is.
        """
        features = self.pre_logits(feats)
        losses = {}
        if self.with_task:
            losses.update(self._task_loss(features, data_samples, kwargs))
        if self.branches:
            inputs = self.branch_inputs(feats, features)
            losses.update(self.branch_losses(inputs, data_samples))
        return losses

    def _task_loss(self, features, samples, kwargs) -> dict:
        known = [s.metainfo.get('is_labelled', True) for s in samples]
        if not all(known):
            rows = [row for row, labelled in enumerate(known) if labelled]
            index = torch.tensor(rows, dtype=torch.long)
            features = features[index.to(features.device)]
            samples = [samples[row] for row in rows]
        if not samples:
            return {}  # a batch of pool images only
        losses = self._get_loss(self.fc(features), samples, **kwargs)
        # MMEngine logs the sum of all losses as 'loss'.
        return {'loss_cls': losses.pop('loss'), **losses}
