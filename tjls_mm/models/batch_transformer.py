"""The transformer over the images of a batch, the bottleneck of TJLS.

Letters of shapes: see ``batch_bottleneck``; ``T`` tokens of width ``D``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from tjls_mm.registry import MODELS

from .batch_bottleneck import BatchBottleneck, Valid, add_to_locations, pool_locations

ACTIVATIONS = {'sigmoid': torch.sigmoid, 'relu': F.relu}


class _Block(nn.Module):
    """Attention and feed-forward, each with a residual; pre-LayerNorm if wanted."""

    def __init__(self, width, heads, hidden, activation, layer_norm, project) -> None:
        super().__init__()
        self.heads = heads
        self.activation = ACTIVATIONS[activation]
        self.norm1 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.norm2 = nn.LayerNorm(width) if layer_norm else nn.Identity()
        self.query = nn.Linear(width, hidden)
        self.key = nn.Linear(width, hidden)
        self.value = nn.Linear(width, hidden) if project else None
        self.out = nn.Linear(hidden, width) if project else None
        self.ffn1 = nn.Linear(width, hidden)
        self.ffn2 = nn.Linear(hidden, width)


class _ImageBlock(_Block):
    """Tokens are images."""

    def _project(self, tokens: Tensor, *layers: nn.Module) -> list[Tensor]:
        parts = (layer(tokens).unflatten(-1, (self.heads, -1)) for layer in layers)
        return [part.transpose(-3, -2) for part in parts]  # (N, h, T, d)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Tokens x (N, T, D) after attention, to x and the context, and feed-forward.

        The context is (N, M, D), or (1, M, D) that N single tokens (T = 1) share.
        """
        q, k, v = self._project(self.norm1(x), self.query, self.key, self.value)
        if context is None:
            attended = F.scaled_dot_product_attention(q, k, v)
        else:
            there = self._project(self.norm1(context), self.key, self.value)
            if len(context) == 1:
                attended = _attend_to_itself_and(q, k, v, *there)
            else:
                k, v = (torch.cat(pair, 2) for pair in zip((k, v), there, strict=True))
                attended = F.scaled_dot_product_attention(q, k, v)
        x = x + self.out(attended.transpose(-3, -2).flatten(-2))
        return x + self.ffn2(self.activation(self.ffn1(self.norm2(x))))


def _attend_to_itself_and(q, k, v, k_there, v_there) -> Tensor:
    """Attention of single tokens (N, h, 1, d) to themselves and a context.

    One product with the context, (1, h, M, d), in place of N copies of it.
    """
    q, k, v = (part[:, :, 0].transpose(0, 1) for part in (q, k, v))
    to_itself = (q * k).sum(-1, keepdim=True)  # (h, N, 1)
    to_context = q @ k_there[0].transpose(-1, -2)  # (h, N, M)
    scores = torch.cat([to_itself, to_context], -1) * q.shape[-1] ** -0.5
    weights = scores.softmax(-1)
    mixed = weights[..., :1] * v + weights[..., 1:] @ v_there[0]
    return mixed.transpose(0, 1)[:, :, None]


class _ChannelBlock(_Block):
    """Eq. 1 and 2: tokens are feature channels, the embedding axis is the batch.

    The batch size is usually far below ``hidden``, so the projections are folded,
    which changes only rounding: a row of ``Q K^T`` equals that of
    ``(x W_Q W_K^T + b_Q W_K^T) x^T`` up to a constant, which the softmax ignores; rows
    of the attention map A sum to 1: ``A (x W_V + b_V) W_O = A x (W_V W_O) + b_V W_O``.
    """

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
        """Tokens x (N, T, B) after both; with ``first_slot`` that column, (N, T, 1)."""
        x = x + self._attention(self.norm1(x))
        rows = slice(1 if first_slot else None)
        hidden = self.activation(self.ffn1(self.norm2(x)))
        update = F.linear(hidden, self.ffn2.weight[rows], self.ffn2.bias[rows])
        return x[..., rows] + update


@MODELS.register_module()
class BatchTransformer(BatchBottleneck):
    """Transformer encoder over the images of a batch, the bottleneck of TJLS.

    With ``tokens='images'`` images attend to each other, and what attention and
    feed-forward add to the average of a map is added to every location; each level
    has its own weights. With ``tokens='channels'`` the tokens of a location are its
    channels and the embedding axis is the batch, as in the paper's matrices; weights
    belong to batch slots and are shared over locations and levels.

    Args:
        features: ``F`` of the input, or one number per level.
        tokens: 'images' or 'channels'.
        batch_size: Images that attend to each other in training, all processes
            together where ``gather`` is on. Needed for 'channels'.
        depth: Blocks.
        heads: Of attention; their number divides ``hidden``.
        hidden: Width of queries, keys, values and of the feed-forward layer.
        activation: Of that layer: 'sigmoid' (Eq. 2) or 'relu' (authors' code).
        layer_norm: Pre-LayerNorm. Defaults to True for 'images' only.
        value_projection: False for attention that acts on the tokens themselves,
            its heads averaged ('channels' only; authors' code).
        update_scale: Factor on what is added to the maps ('images' only). A small one
            slows down how fast a learner comes to rely on it.
        zero_init: Let every block start as the identity, so that a learner starts with
            the outputs of the one without.
        gather, eval_context, init_cfg: See ``BatchBottleneck``.
        recompute: Recompute activations in the backward pass instead of keeping
            them. Defaults to True for 'channels' only.

    Arguments that are none of these or do not fit each other are a ValueError.
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
        update_scale: float = 1.0,
        zero_init: bool = False,
        gather: bool = False,
        eval_context: str = 'bank',
        recompute: bool | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        self._check_choice('tokens', tokens, ('images', 'channels'))
        self._check_choice('activation', activation, tuple(ACTIVATIONS))
        if hidden % heads:
            raise ValueError(f'heads must divide hidden, got {heads} and {hidden}')
        if tokens == 'channels' and batch_size is None:
            raise ValueError(
                "tokens='channels' needs batch_size (weights belong to batch slots): "
                'tools/al_train.py takes it from train_dataloader.batch_size.'
            )
        if tokens == 'images' and not value_projection:
            raise ValueError("value_projection=False needs tokens='channels'")
        if tokens == 'channels' and update_scale != 1:
            raise ValueError("update_scale needs tokens='images'")
        levels = [features] if isinstance(features, int) else list(features)
        super().__init__(len(levels), gather, eval_context, init_cfg)
        self.tokens = tokens
        self.batch_size = batch_size
        self.update_scale = update_scale
        self.recompute = tokens == 'channels' if recompute is None else recompute
        block, widths = _ImageBlock, levels
        if tokens == 'channels':
            block, widths = _ChannelBlock, [batch_size]
        norm = tokens == 'images' if layer_norm is None else layer_norm
        settings = (heads, hidden, activation, norm, value_projection)
        self.encoders = nn.ModuleList(
            nn.Sequential(*(block(width, *settings) for _ in range(depth)))
            for width in widths
        )
        for block in self.encoders.modules() if zero_init else ():
            for last in (getattr(block, 'out', None), getattr(block, 'ffn2', None)):
                if last is not None:
                    nn.init.zeros_(last.weight)
                    nn.init.zeros_(last.bias)

    def _encode(self, encoder: nn.Sequential, tokens: Tensor) -> Tensor:
        if self.recompute and torch.is_grad_enabled():
            return checkpoint(encoder, tokens, use_reentrant=False)
        return encoder(tokens)

    def _seen_by_others(self, x: Tensor, valid: Valid) -> Tensor:
        return pool_locations(x, valid) if self.tokens == 'images' else x

    def _in_batch(self, level: int, x: Tensor, batch: Tensor, rows: slice) -> Tensor:
        if self.tokens == 'channels':
            return self._channels_in_batch(self.encoders[0], x, batch, rows)
        attended = self._encode(self.encoders[level], batch[None])[0]  # (B, F)
        return self._add(x, (attended - batch)[rows])

    def _in_bank(self, level: int, x: Tensor, bank: Tensor, valid: Valid) -> Tensor:
        if self.tokens == 'channels':
            return self._channels_in_bank(self.encoders[0], x, bank)
        encoder, pooled = self.encoders[level], pool_locations(x, valid)
        own, context = pooled[:, None], bank.to(x.dtype)[None]  # (B, 1, F), (1, M, F)
        for block in encoder[:-1]:
            # From the second block on the bank's tokens have seen the image.
            sequence = block(torch.cat([own, context.expand(len(x), -1, -1)], dim=1))
            own, context = sequence[:, :1], sequence[:, 1:]
        own = encoder[-1](own, context)[:, 0]
        return self._add(x, own - pooled)

    def _add(self, x: Tensor, update: Tensor) -> Tensor:
        if self.update_scale != 1:
            update = update * self.update_scale
        return add_to_locations(x, update)

    def _channels_in_batch(self, encoder, x: Tensor, batch: Tensor, rows) -> Tensor:
        if len(batch) != self.batch_size:
            raise ValueError(
                f"tokens='channels' was built for batches of {self.batch_size} "
                f'images and got {len(batch)}: its weights belong to batch slots.'
            )
        tokens = _by_location(batch).permute(2, 1, 0)  # (HW, F, B)
        # Some locations at a time bound what the recomputation holds.
        chunk = max(1, 2**22 // (tokens.shape[1] * encoder[0].ffn1.out_features))
        parts = [self._encode(encoder, part) for part in tokens.split(chunk)]
        return torch.cat(parts)[..., rows].permute(2, 1, 0).reshape(x.shape)

    def _channels_in_bank(self, encoder, x: Tensor, bank: Tensor) -> Tensor:
        if len(bank) != self.batch_size - 1:
            raise ValueError(
                f'The context bank holds {len(bank)} images, expected one less than '
                f'the {self.batch_size} of the batches that trained the weights.'
            )
        context = _by_location(bank.to(x.dtype)).permute(2, 1, 0)  # (HW, F, M)
        own = _by_location(x).transpose(1, 2)[..., None]  # (B, HW, F, 1)
        out = []
        # B times the numbers of its map per image: a few at a time fit the cache.
        chunk = max(1, 2**22 // (context.shape[0] * context.shape[1] * len(bank)))
        for part in own.split(chunk):
            tokens = torch.cat([part, context.expand(len(part), -1, -1, -1)], -1)
            tokens = tokens.flatten(0, 1)  # (N * HW, F, B), the image in slot 0
            tokens = encoder[-1](encoder[:-1](tokens), first_slot=True)
            out.append(tokens[..., 0].unflatten(0, (len(part), -1)).transpose(1, 2))
        return torch.cat(out).reshape(x.shape)


def _by_location(x: Tensor) -> Tensor:
    """(B, F, ...) to (B, F, HW)."""
    return x[..., None].flatten(2)
