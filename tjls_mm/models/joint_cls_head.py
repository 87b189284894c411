"""Linear classification head with a batch bottleneck and branches."""

from collections.abc import Sequence

from mmpretrain.models.heads import LinearClsHead
from torch import Tensor

from tjls_mm.models.branch import BranchInputs, JointLearner, add_losses, labelled_part
from tjls_mm.registry import MODELS


@MODELS.register_module()
class JointClsHead(JointLearner, LinearClsHead):
    """LinearClsHead whose features also serve what trains beside the task.

    It stands in mmpretrain's ``ImageClassifier`` after global pooling. Images whose
    metainfo says ``is_labelled=False`` do not enter the task loss.

    Args:
        bottleneck: Config of a batch bottleneck on the pooled features, or None.
        branches: Name to config of what trains beside the task, e.g.
            ``dict(discriminator=dict(type='tjls_mm.DiscriminatorHead',
            hidden_features=(512,)))``.
        init_cfg: By default LinearClsHead's, for its own layer only.
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
        width = self.in_channels
        self.build_joint_parts(bottleneck, branches, width, width, [width])

    def pre_logits(self, feats: Sequence[Tensor]) -> Tensor:
        """Last stage after the bottleneck, what the class layer sees: (B, F)."""
        features = super().pre_logits(feats)
        return features if self.bottleneck is None else self.bottleneck(features)

    def branch_inputs(self, feats: Sequence[Tensor], features: Tensor) -> BranchInputs:
        """What branches see: the last stage and, as vector, those of ``pre_logits``."""
        return BranchInputs(features, (feats[-1],))

    def loss(self, feats: Sequence[Tensor], data_samples: list, **kwargs) -> dict:
        """Losses of the update at hand, see ``turn``; ``loss_cls`` is the task's."""
        features = self.pre_logits(feats)
        rows, own = labelled_part(data_samples, features.device)
        losses = {}
        if self.with_task and own:
            given = self.measured(0, features, rows)
            if len(own) < len(data_samples):
                given = given[rows]
            found = self._get_loss(self.fc(given), own, **kwargs)
            # MMEngine logs the sum of all losses as 'loss'.
            losses = {'loss_cls': found.pop('loss'), **found}
        if self.branches:
            inputs = self.branch_inputs(feats, self.measured(1, features, rows))
            add_losses(losses, self.branch_losses(inputs, data_samples))
        return losses
