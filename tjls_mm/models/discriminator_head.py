"""The labelled-versus-pool discriminator, the sampler of JLS and TJLS."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from tjls_mm.registry import MODELS


@MODELS.register_module()
class DiscriminatorHead(BaseModule):
    """Tell labelled images (target 1) from pool images (target 0).

    Args:
        in_features: Numbers per image.
        hidden_features: Widths of the hidden layers, each followed by a ReLU.
            Empty for SSD, (512,) for the classifiers of the paper.
        normalize: L2-normalise the features of an image, in training and in
            scoring alike.
        loss_weight: Weight of the loss in the objective.
        init_cfg: Initialisation config of MMEngine.

    Source: TJLS, Sec. 3 and 4.1.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: Sequence[int] = (),
        normalize: bool = True,
        loss_weight: float = 0.5,  # TJLS, Sec. 4.1: 50 % of the task loss
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        self.in_features = in_features
        self.normalize = normalize
        self.loss_weight = loss_weight
        widths = [in_features, *hidden_features]
        layers = []
        for width, out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(width, out), nn.ReLU(inplace=True)]
        self.hidden = nn.Sequential(*layers)
        self.logit = nn.Linear(widths[-1], 1)

    def forward(self, features: Tensor) -> Tensor:
        """Logit of being labelled, in float32 whatever autocast says.

        Args:
            features: (B, in_features), or more axes that are flattened.

        Returns:
            Logits, (B,).
        """
        with torch.autocast(features.device.type, enabled=False):
            x = features.flatten(1).float()
            if self.normalize:
                x = F.normalize(x, dim=1)
            x = self.hidden(x)
            # A row of a matrix-vector product may be summed in another order
            # in another batch; a row-wise sum is not.
            return (x * self.logit.weight[0]).sum(1) + self.logit.bias[0]

    def loss(self, logits: Tensor, is_labelled: Tensor) -> dict[str, Tensor]:
        """Weighted binary cross-entropy and the accuracy of the batch.

        Args:
            logits: (B,).
            is_labelled: (B,), bool.

        Returns:
            ``loss_sampler``, a scalar that enters the objective, and
            ``sampler_acc`` in [0, 1], which does not.
        """
        targets = is_labelled.to(logits)
        loss = F.binary_cross_entropy_with_logits(logits, targets)
        accuracy = ((logits.detach() > 0) == is_labelled).float().mean()
        return {'loss_sampler': self.loss_weight * loss, 'sampler_acc': accuracy}
