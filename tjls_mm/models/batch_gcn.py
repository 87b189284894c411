"""A graph convolutional bottleneck whose nodes are the images of a batch.

Letters of shapes: see ``batch_bottleneck``; ``H`` hidden width.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tjls_mm.registry import MODELS

from .batch_bottleneck import BatchBottleneck, Valid, add_to_locations, pool_locations

# A node without neighbours has a column of zeros.
_LEAST_DEGREE = 1e-6


def similarity(x: Tensor, y: Tensor) -> Tensor:
    """Cosine of detached features (N, F) and (M, F): (N, M), in [0, 1], float32.

    Negative ones are cut off: columns of the adjacency could sum to nothing.
    """
    with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
        x, y = F.normalize(x.float(), dim=1), F.normalize(y.float(), dim=1)
        return (x @ y.t()).clamp(0, 1)


class _GraphConvolutions(nn.Module):
    """|F| -> hidden -> |F|: A ReLU(A X W_1 + b_1) W_2 + b_2."""

    def __init__(self, width: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.conv1 = nn.Linear(width, hidden)
        self.conv2 = nn.Linear(hidden, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        """Update of every node, (N, F), from nodes (N, F) and adjacency (N, N)."""
        x = adjacency @ F.linear(x, self.conv1.weight) + self.conv1.bias
        x = adjacency @ self.dropout(F.relu(x))
        return F.linear(x, self.conv2.weight, self.conv2.bias)

    def among(self, x: Tensor, bank: Tensor) -> Tensor:
        """Update (B, F) of images x, each in a graph of its own with the bank, (M, F).

        ``forward`` for the first of 1 + M nodes, B times, with the bank projected once.
        """
        links = similarity(x, bank)  # (B, M)
        between = similarity(bank, bank).fill_diagonal_(0)
        own_degree = links.sum(1, keepdim=True).clamp_min(_LEAST_DEGREE)  # (B, 1)
        degrees = (between.sum(0) + links).clamp_min(_LEAST_DEGREE)  # (B, M)
        own = F.linear(x, self.conv1.weight)  # (B, H)
        others = F.linear(bank, self.conv1.weight)  # (M, H)
        from_others = links / degrees  # (B, M), the row of the image itself
        hidden_own = F.relu(from_others @ others + own + self.conv1.bias)
        hidden_others = (
            between @ (others / degrees[..., None])
            + links[..., None] * (own / own_degree)[:, None]
            + others
            + self.conv1.bias
        )  # (B, M, H)
        mixed = (from_others[:, None] @ F.relu(hidden_others))[:, 0] + hidden_own
        return F.linear(mixed, self.conv2.weight, self.conv2.bias)


@MODELS.register_module()
class BatchGCN(BatchBottleneck):
    """Two graph convolutions over the images of a batch, with a residual.

    The adjacency is the cosine between detached features without its diagonal, each
    column divided by its sum, plus the self loop. What the convolutions add to the
    average of a map is added to every location; each level has its own weights.

    Args:
        features: ``F`` of the input, or one number per level.
        hidden: Width between the two convolutions.
        dropout: On the hidden nodes, in [0, 1).
        gather, eval_context, init_cfg: See ``BatchBottleneck``.

    Source: TJLS, Table 3; the graph after UncertainGCN (Caramalau et al., 2021).
    """

    def __init__(
        self,
        features: int | Sequence[int],
        hidden: int = 128,
        dropout: float = 0.3,
        gather: bool = False,
        eval_context: str = 'bank',
        init_cfg: dict | None = None,
    ) -> None:
        widths = [features] if isinstance(features, int) else list(features)
        super().__init__(len(widths), gather, eval_context, init_cfg)
        self.levels = nn.ModuleList(
            _GraphConvolutions(width, hidden, dropout) for width in widths
        )

    def _in_batch(self, level: int, x: Tensor, batch: Tensor, rows: slice) -> Tensor:
        links = similarity(batch, batch).fill_diagonal_(0)
        adjacency = (links / links.sum(0).clamp_min(_LEAST_DEGREE)).fill_diagonal_(1)
        return add_to_locations(x, self.levels[level](batch, adjacency)[rows])

    def _in_bank(self, level: int, x: Tensor, bank: Tensor, valid: Valid) -> Tensor:
        pooled = pool_locations(x, valid)
        update = self.levels[level].among(pooled, bank.to(pooled.dtype))
        return add_to_locations(x, update)
