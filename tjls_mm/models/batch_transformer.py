"""The transformer over the images of a batch, the bottleneck of TJLS.

Letters used for shapes: ``B`` images of the batch, ``F`` features of a map, ``T``
tokens of a sequence, ``D`` width of a token, ``M`` images in the context bank.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tjls_mm.models.batch_bottleneck import (
    BatchBottleneck,
    add_to_locations,
    check_choice,
    pool_locations,
)
from tjls_mm.registry import MODELS

ACTIVATIONS = {'sigmoid': torch.sigmoid, 'relu': F.relu}


class _ImageBlock(nn.Module):
    """Pre-LayerNorm attention and feed-forward over tokens that are images."""

    def __init__(
        self, width: int, heads: int, hidden: int, activation: str, layer_norm: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.activation = ACTIVATIONS[activation]
        self.norm1 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.norm2 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.query = nn.Linear(width, hidden)
        self.key = nn.Linear(width, hidden)
        self.value = nn.Linear(width, hidden)
        self.out = nn.Linear(hidden, width)
        self.ffn1 = nn.Linear(width, hidden)
        self.ffn2 = nn.Linear(hidden, width)

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)  # (N, h, T, d)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Attend from every token of x to x and to the context.

        Args:
            x: Tokens, (N, T, D).
            context: Further tokens to attend to, (1, M, D) shared or (N, M, D).

        Returns:
            The tokens of x after both residual sub-blocks, (N, T, D).
        """
        normed = self.norm1(x)
        queries, keys, values = (
            self._split(project(normed))
            for project in (self.query, self.key, self.value)
        )  # (N, h, T, d)
        if context is None:
            attended = F.scaled_dot_product_attention(queries, keys, values)
        else:
            context = self.norm1(context)
            keys_there, values_there = (
                self._split(project(context)) for project in (self.key, self.value)
            )
            if len(context) == 1 and x.shape[1] == 1:
                attended = _attend_to_itself_and(
                    queries, keys, values, keys_there, values_there
                )
            else:
                attended = F.scaled_dot_product_attention(
                    queries,
                    _append(keys, keys_there),
                    _append(values, values_there),
                )
        x = x + self.out(attended.transpose(-3, -2).flatten(-2))
        return x + self.ffn2(self.activation(self.ffn1(self.norm2(x))))


def _append(tokens: Tensor, context: Tensor) -> Tensor:
    """(N, h, T, d) and a context of 1 or N sequences to (N, h, T + M, d)."""
    return torch.cat([tokens, context.expand(len(tokens), -1, -1, -1)], dim=2)


def _attend_to_itself_and(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    keys_there: Tensor,
    values_there: Tensor,
) -> Tensor:
    """Attention of single tokens to themselves and to a context that all share.

    One product with the context in place of N copies of it.

    Args:
        queries, keys, values: Of the tokens, (N, h, 1, d).
        keys_there, values_there: Of the context, (1, h, M, d).

    Returns:
        (N, h, 1, d).
    """
    q, k, v = (part[:, :, 0].transpose(0, 1) for part in (queries, keys, values))
    to_itself = (q * k).sum(-1, keepdim=True)  # (h, N, 1)
    to_context = q @ keys_there[0].transpose(-1, -2)  # (h, N, M)
    scores = torch.cat([to_itself, to_context], -1) * q.shape[-1] ** -0.5
    weights = scores.softmax(-1)
    mixed = weights[..., :1] * v + weights[..., 1:] @ values_there[0]
    return mixed.transpose(0, 1)[:, :, None]


class _ChannelBlock(nn.Module):
    """Eq. 1 and 2: tokens are feature channels, the embedding axis is the batch.

    The width of a token is the batch size, usually far below ``hidden``. So the
    projections are folded, which changes nothing but rounding: with
    ``Q = x W_Q + b_Q`` and ``K = x W_K + b_K``, a row of ``Q K^T`` equals the row
    of ``(x W_Q W_K^T + b_Q W_K^T) x^T`` up to a constant, which the softmax
    ignores; and since the rows of the attention map A sum to one,
    ``A (x W_V + b_V) W_O = A x (W_V W_O) + b_V W_O``.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        hidden: int,
        activation: str,
        layer_norm: bool,
        value_projection: bool,
    ) -> None:
        super().__init__()
        self.heads = heads
        self.activation = ACTIVATIONS[activation]
        self.norm1 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.norm2 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.query = nn.Linear(width, hidden)
        self.key = nn.Linear(width, hidden)
        self.value = nn.Linear(width, hidden) if value_projection else None
        self.out = nn.Linear(hidden, width) if value_projection else None
        self.ffn1 = nn.Linear(width, hidden)
        self.ffn2 = nn.Linear(hidden, width)

    def _attention(self, x: Tensor) -> Tensor:
        h = self.heads
        w_q = self.query.weight.unflatten(0, (h, -1))  # (h, d, B)
        w_k = self.key.weight.unflatten(0, (h, -1))
        b_q = self.query.bias.unflatten(0, (h, -1))  # (h, d)
        w_qk = torch.einsum('hdb,hdc->hbc', w_q, w_k)
        b_qk = torch.einsum('hd,hdc->hc', b_q, w_k)
        queries = torch.einsum('ntb,hbc->nhtc', x, w_qk) + b_qk[:, None]
        # Under autocast the products are of lower precision than the input.
        tokens = x[:, None].expand(-1, h, -1, -1).to(queries.dtype)
        mixed = F.scaled_dot_product_attention(
            queries, tokens, tokens, scale=w_q.shape[1] ** -0.5
        )  # (N, h, T, B)
        if self.value is None:
            return mixed.mean(1)
        w_v = self.value.weight.unflatten(0, (h, -1))  # (h, d, B)
        w_o = self.out.weight.unflatten(1, (h, -1))  # (B, h, d)
        w_vo = torch.einsum('hdb,chd->hbc', w_v, w_o)
        bias = F.linear(self.value.bias, self.out.weight, self.out.bias)
        return torch.einsum('nhtb,hbc->ntc', mixed, w_vo) + bias

    def forward(self, x: Tensor, first_slot: bool = False) -> Tensor:
        """Attend over channels, separately in each of N sequences.

        Args:
            x: Tokens, (N, T, B).
            first_slot: Return the first image's column only, for which the
                last projection need not be computed for the others.

        Returns:
            The tokens after both residual sub-blocks, (N, T, B), or (N, T, 1).
        """
        x = x + self._attention(self.norm1(x))
        rows = slice(1 if first_slot else None)
        update = F.linear(
            self.activation(self.ffn1(self.norm2(x))),
            self.ffn2.weight[rows],
            self.ffn2.bias[rows],
        )
        return x[..., rows] + update


@MODELS.register_module()
class BatchTransformer(BatchBottleneck):
    """Transformer encoder over the images of a batch, the bottleneck of TJLS.

    It has no positional encoding and no decoder, and a residual around both
    sub-blocks. Input and output have the same shape: a tensor (B, F) or
    (B, F, H, W), or a sequence of them, one per level.

    With ``tokens='images'`` the tokens are images: a map is averaged over its
    locations, images attend to each other, and what attention and feed-forward
    add to the average is added to every location. Each level has its own
    weights. With ``tokens='channels'`` the tokens of a location are its channels
    and the embedding axis is the batch, as in the paper's matrices; weights
    belong to batch slots and are shared over locations and levels.

    In train mode an image attends to its batch mates. In eval mode it attends to
    itself and the context bank only, so its output does not depend on the batch.

    Args:
        features: ``F`` of the input, or one number per level.
        tokens: 'images' or 'channels'.
        batch_size: Images that attend to each other in training, all processes
            together where ``gather`` is on. Needed for 'channels'.
        depth: Number of blocks.
        heads: Number of attention heads; divides ``hidden``.
        hidden: Width of queries, keys, values and of the feed-forward layer.
        activation: Of the feed-forward layer: 'sigmoid' (Eq. 2) or 'relu'
            (authors' code).
        layer_norm: Pre-LayerNorm. Defaults to True for 'images', False for
            'channels'.
        value_projection: False for attention that acts on the tokens themselves,
            its heads averaged ('channels' only; authors' code).
        gather: Let images attend across all processes.
        eval_context: 'bank', or 'batch' to attend to the batch in eval mode too,
            which makes outputs depend on the batch and warns.
        recompute: Recompute the block in the backward pass instead of keeping
            its activations. Defaults to True for 'channels'.
        init_cfg: Initialisation config of MMEngine.

    Raises:
        ValueError: If an argument is not one of the above, or ``heads`` does not
            divide ``hidden``.

    Source: TJLS, Sec. 3, Eq. 1 and 2.
    """

    def __init__(
        self,
        features: int | Sequence[int],
        tokens: str = 'images',
        batch_size: int | None = None,
        depth: int = 1,
        heads: int = 1,
        hidden: int = 128,
        activation: str = 'sigmoid',
        layer_norm: bool | None = None,
        value_projection: bool = True,
        gather: bool = False,
        eval_context: str = 'bank',
        recompute: bool | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        check_choice('tokens', tokens, ('images', 'channels'))
        check_choice('activation', activation, tuple(ACTIVATIONS))
        if hidden % heads:
            raise ValueError(f'heads must divide hidden, got {heads} and {hidden}')
        if tokens == 'channels' and batch_size is None:
            raise ValueError(
                "tokens='channels' needs batch_size: its weights belong to batch "
                'slots. tools/al_train.py takes it from train_dataloader.batch_size.'
            )
        if tokens == 'images' and not value_projection:
            raise ValueError("value_projection=False needs tokens='channels'")
        levels = [features] if isinstance(features, int) else list(features)
        super().__init__(len(levels), gather, eval_context, init_cfg)
        self.tokens = tokens
        self.batch_size = batch_size
        self.recompute = tokens == 'channels' if recompute is None else recompute
        if tokens == 'images':
            norm = True if layer_norm is None else layer_norm
            self.encoders = nn.ModuleList(
                nn.ModuleList(
                    _ImageBlock(width, heads, hidden, activation, norm)
                    for _ in range(depth)
                )
                for width in levels
            )
        else:
            self.encoders = nn.ModuleList(
                [
                    nn.ModuleList(
                        _ChannelBlock(
                            batch_size,
                            heads,
                            hidden,
                            activation,
                            bool(layer_norm),
                            value_projection,
                        )
                        for _ in range(depth)
                    )
                ]
            )

    def _encode(self, encoder: nn.ModuleList, tokens: Tensor) -> Tensor:
        def run(x: Tensor) -> Tensor:
            for block in encoder:
                x = block(x)
            return x

        if self.recompute and torch.is_grad_enabled():
            return checkpoint(run, tokens, use_reentrant=False)
        return run(tokens)

    def _seen_by_others(self, x: Tensor) -> Tensor:
        return pool_locations(x) if self.tokens == 'images' else x

    def _in_batch(self, level: int, x: Tensor, batch: Tensor, rows: slice) -> Tensor:
        if self.tokens == 'images':
            return self._images_in_batch(self.encoders[level], x, batch, rows)
        return self._channels_in_batch(self.encoders[0], x, batch, rows)

    def _in_bank(self, level: int, x: Tensor, bank: Tensor) -> Tensor:
        if self.tokens == 'images':
            return self._images_in_bank(self.encoders[level], x, bank)
        return self._channels_in_bank(self.encoders[0], x, bank)

    def _images_in_batch(self, encoder, x: Tensor, pooled: Tensor, rows) -> Tensor:
        attended = self._encode(encoder, pooled[None])[0]  # (B, F)
        return add_to_locations(x, (attended - pooled)[rows])

    def _images_in_bank(self, encoder, x: Tensor, bank: Tensor) -> Tensor:
        pooled = pool_locations(x)
        own, context = pooled[:, None], bank.to(x.dtype)[None]  # (B, 1, F), (1, M, F)
        for block in encoder[:-1]:
            # From the second block on the bank's tokens have seen the image.
            sequence = torch.cat([own, context.expand(len(x), -1, -1)], dim=1)
            sequence = block(sequence)
            own, context = sequence[:, :1], sequence[:, 1:]
        own = encoder[-1](own, context)[:, 0]
        return add_to_locations(x, own - pooled)

    def _channels_in_batch(self, encoder, x: Tensor, batch: Tensor, rows) -> Tensor:
        if len(batch) != self.batch_size:
            raise ValueError(
                f"tokens='channels' was built for batches of {self.batch_size} "
                f'images and got {len(batch)}: its weights belong to batch slots.'
            )
        tokens = batch.flatten(2).permute(2, 1, 0) if x.ndim > 2 else batch.t()[None]
        # The feed-forward layer is as wide as `hidden` for every token: some
        # locations at a time bound what the recomputation holds.
        chunk = max(1, 2**22 // (tokens.shape[1] * encoder[0].ffn1.out_features))
        parts = [self._encode(encoder, part) for part in tokens.split(chunk)]
        tokens = torch.cat(parts)  # (HW, F, B)
        return tokens[..., rows].permute(2, 1, 0).reshape(x.shape)

    def _channels_in_bank(self, encoder, x: Tensor, bank: Tensor) -> Tensor:
        if len(bank) != self.batch_size - 1:
            raise ValueError(
                f'The context bank holds {len(bank)} images, expected '
                f'{self.batch_size - 1}: one less than the batch of '
                f'{self.batch_size} images that the weights were trained with.'
            )
        # (HW, F, M) and (B, HW, F, 1)
        context = bank.to(x.dtype).flatten(1).unflatten(1, (x.shape[1], -1))
        context = context.permute(2, 1, 0)
        own = x.flatten(1).unflatten(1, (x.shape[1], -1)).transpose(1, 2)[..., None]
        out = []
        # Every image is a sequence set of its own, B times the numbers of its
        # map: a few images at a time keep the working set near the cache.
        chunk = max(1, 2**22 // (context.shape[0] * context.shape[1] * len(bank)))
        for part in own.split(chunk):
            tokens = torch.cat([part, context.expand(len(part), -1, -1, -1)], -1)
            tokens = tokens.flatten(0, 1)  # (N*HW, F, B), the image in slot 0
            for block in encoder[:-1]:
                tokens = block(tokens)
            tokens = encoder[-1](tokens, first_slot=True)
            out.append(tokens[..., 0].unflatten(0, (len(part), -1)).transpose(1, 2))
        return torch.cat(out).reshape(x.shape)
