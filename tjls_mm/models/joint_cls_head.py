"""Linear classification head with a batch bottleneck and a discriminator."""

from collections.abc import Sequence

import torch
from mmpretrain.models.heads import LinearClsHead
from torch import Tensor

from tjls_mm.models.joint_learner import JointLearner
from tjls_mm.registry import MODELS


@MODELS.register_module()
class JointClsHead(JointLearner, LinearClsHead):
    """LinearClsHead whose features also tell labelled from pool images.

    It stands in an ``ImageClassifier`` of mmpretrain after any backbone and global
    pooling. Each data sample of a training batch says by its metainfo
    ``is_labelled`` whether it may enter the task loss; a sample that does not say
    so is labelled, so that the head trains on any data set of mmpretrain.

    Args:
        bottleneck: Config of a batch bottleneck on the pooled features, e.g.
            ``dict(type='tjls_mm.BatchTransformer')`` (TJLS) or
            ``dict(type='tjls_mm.BatchGCN')``, or None (JLS). Its ``features`` are
            filled in.
        discriminator: Config of the discriminator, e.g.
            ``dict(type='tjls_mm.DiscriminatorHead', hidden_features=(512,))``, or
            None for a plain classifier. Its ``in_features`` is filled in.
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
        discriminator: dict | None = None,
        init_cfg: dict | list | None = None,
        **kwargs,
    ) -> None:
        # LinearClsHead's own config would reach every linear layer below it.
        default = dict(type='Normal', std=0.01, override=dict(name='fc'))
        super().__init__(*args, init_cfg=init_cfg or default, **kwargs)
        self.bottleneck = bottleneck and MODELS.build(
            {**bottleneck, 'features': self.in_channels}
        )
        self.discriminator = discriminator and MODELS.build(
            {**discriminator, 'in_features': self.in_channels}
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

    def loss(self, feats: Sequence[Tensor], data_samples: list, **kwargs) -> dict:
        """Losses of the update at hand (see ``turn``).

        Args:
            feats: Pooled features of each stage of the backbone, (B, F).
            data_samples: One DataSample per image.
            **kwargs: Of the loss module.

        Returns:
            ``loss_cls`` over the labelled images (task update), ``loss_sampler``
            and ``sampler_acc`` over all images (sampler update), or all of them
            (joint update).
        """
        features = self.pre_logits(feats)
        is_labelled = [getattr(s, 'is_labelled', True) for s in data_samples]
        losses = {}
        if self.discriminator is None or self.turn != 'sampler':
            losses.update(self._task_loss(features, data_samples, is_labelled, kwargs))
        if self.discriminator is not None and self.turn != 'task':
            targets = torch.tensor(is_labelled, device=features.device)
            logits = self.discriminator(features)
            losses.update(self.discriminator.loss(logits, targets))
        return losses

    def _task_loss(self, features, samples, is_labelled, kwargs) -> dict:
        if not all(is_labelled):
            rows = [row for row, known in enumerate(is_labelled) if known]
            index = torch.tensor(rows, dtype=torch.long)
            features = features[index.to(features.device)]
            samples = [samples[row] for row in rows]
        if not samples:
            return {}  # a batch of pool images only
        losses = self._get_loss(self.fc(features), samples, **kwargs)
        # MMEngine logs the sum of all losses as 'loss'.
        return {'loss_cls': losses.pop('loss'), **losses}

    def pool_outputs(self, feats: Sequence[Tensor], names: Sequence[str]) -> dict:
        """Outputs per image that query strategies ask for.

        Args:
            feats: Pooled features of each stage of the backbone, (B, F).
            names: Of 'logit', the discriminator's logit of being labelled, (B,),
                and 'feature', what class layer and discriminator see, (B, F).

        Returns:
            One tensor of leading size B per name.

        Raises:
            KeyError: If a name is not one of the above, or the discriminator is
                asked for and there is none.
        """
        unknown = set(names) - {'logit', 'feature'}
        if unknown or ('logit' in names and self.discriminator is None):
            raise KeyError(
                f'JointClsHead cannot provide {sorted(unknown) or "logit"}: it '
                "provides 'feature', and with a discriminator 'logit'."
            )
        features = self.pre_logits(feats)
        outputs = {'feature': features}
        if 'logit' in names:
            outputs['logit'] = self.discriminator(features)
        return {name: outputs[name] for name in names}
