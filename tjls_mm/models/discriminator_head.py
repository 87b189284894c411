"""The labelled-versus-pool discriminator, the sampler of JLS and TJLS."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tjls_mm.models.branch import Branch, BranchInputs
from tjls_mm.registry import MODELS


class _ScaledGradient(torch.autograd.Function):
    """The same numbers, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None]:
        return (gradient if ctx.scale == 1 else gradient * ctx.scale), None


@MODELS.register_module()
class DiscriminatorHead(Branch):
    """Tell labelled images (target 1) from pool images (target 0).

    Args:
        in_features, feat_channels, init_cfg: See ``Branch``.
        hidden_features: Widths of hidden layers with ReLU: in the paper none for SSD,
            (512,) for the classifiers.
        normalize: L2-normalise the features of an image.
        loss_weight: In the objective.
        gradient_scale: Factor on the gradient that it sends to the learner, in [0, 1].
            With 1, the paper's, it may learn its images by heart through the learner.

    Source: TJLS, Sec. 3 and 4.1.
    """

    uses_pool = True
    provides = ('logit',)

    def __init__(
        self,
        in_features: int,
        feat_channels: Sequence[int] = (),
        hidden_features: Sequence[int] = (),
        normalize: bool = True,
        loss_weight: float = 0.5,  # TJLS, Sec. 4.1: 50 % of the task loss
        gradient_scale: float = 1.0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(in_features, feat_channels, init_cfg)
        self.normalize = normalize
        self.loss_weight = loss_weight
        self.gradient_scale = gradient_scale
        widths = [in_features, *hidden_features]
        layers = []
        for width, out in zip(widths, widths[1:], strict=False):
            layers += [nn.Linear(width, out), nn.ReLU(inplace=True)]
        self.hidden = nn.Sequential(*layers)
        self.logit = nn.Linear(widths[-1], 1)

    def forward(self, features: Tensor) -> Tensor:
        """Logits (B,) of features (B, ...), in float32 whatever autocast says."""
        with torch.autocast(features.device.type, enabled=False):
            x = features.flatten(1).float()
            if self.normalize:
                x = F.normalize(x, dim=1)
            x = self.hidden(x)
            # A matrix-vector product may sum a row in another order in another batch.
            return (x * self.logit.weight[0]).sum(1) + self.logit.bias[0]

    def loss(
        self, inputs: BranchInputs, is_labelled: Tensor, samples: Sequence
    ) -> dict[str, Tensor]:
        """Weighted binary cross-entropy of the batch, and its accuracy in [0, 1].

        Samples that say ``is_held_out`` are left out: it must not remember them.
        """
        logits = self(_ScaledGradient.apply(inputs.vector, self.gradient_scale))
        held_out = [s.metainfo.get('is_held_out', False) for s in samples]
        if any(held_out):
            rows = ~torch.tensor(held_out, device=logits.device)
            logits, is_labelled = logits[rows], is_labelled[rows]
        if not len(logits):
            # A mean of nothing is NaN; the gradient of this is zero.
            zero = logits.sum()
            return {'loss_sampler': zero, 'sampler_acc': zero.detach()}
        loss = F.binary_cross_entropy_with_logits(logits, is_labelled.to(logits))
        accuracy = ((logits.detach() > 0) == is_labelled).float().mean()
        return {'loss_sampler': self.loss_weight * loss, 'sampler_acc': accuracy}

    def outputs(self, inputs: BranchInputs) -> dict[str, Tensor]:
        """``logit`` of being labelled, (B,)."""
        return {'logit': self(inputs.vector)}
