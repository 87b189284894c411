"""What every batch bottleneck shares: context bank, gathering, batch independence.

Letters of shapes: ``B`` images of the batch, ``F`` features, ``M`` bank images.
"""

import contextlib
import math
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from fractions import Fraction

import torch
from mmengine import dist
from mmengine.model import BaseModule
from torch import Tensor, nn

Valid = Sequence[tuple[Fraction, Fraction]] | None
"""Share of the padded input's height and width that every image takes; None: all."""


class _GatherBatch(torch.autograd.Function):
    """All processes' batches by rank, with their gradient.

    Backward sums what every process asks of a row; averaged by DDP, that is the
    gradient of the mean loss over the joint batch.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        return torch.cat(dist.all_gather(x.contiguous()))

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad.split(ctx.rows)[dist.get_rank()]


class ContextBank(nn.Module):
    """Reference inputs that an image attends to in eval mode.

    It makes outputs independent of batch mates and travels with the checkpoint of
    the weights it was computed with. It is no buffer: an average of weights (EMA) has
    a bank of its own, not an average of banks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inputs = torch.empty(0)

    def fill(self, inputs: Tensor) -> None:
        """Replace the content by (M, F, ...)."""
        self.inputs = inputs.detach().clone()

    def read(self) -> Tensor:
        """The content, (M, F, ...); RuntimeError if the bank was never filled."""
        if not self.inputs.numel():
            raise RuntimeError(
                'The context bank is empty, expected one in eval mode: register '
                'tjls_mm.ContextBankHook, load a checkpoint that has it, or call '
                "tjls_mm.models.fill_context_banks (or set eval_context='batch')."
            )
        return self.inputs

    def clear(self) -> None:
        self.inputs = self.inputs.new_empty(0)

    def _apply(self, fn, recurse: bool = True) -> 'ContextBank':
        self.inputs = fn(self.inputs)
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + 'inputs'] = self.inputs

    def _load_from_state_dict(self, state_dict, prefix, meta, strict, missing, *rest):
        kept = dict(state_dict)
        saved = kept.pop(prefix + 'inputs', None)
        if saved is None:
            missing.append(prefix + 'inputs')
        else:
            self.inputs = saved.detach().to(self.inputs, copy=True)
        super()._load_from_state_dict(kept, prefix, meta, strict, missing, *rest)


class BatchBottleneck(BaseModule):
    """Base of modules in which the images of a batch inform each other.

    In train mode an image sees its batch mates, in eval mode the context bank in
    their place, so its output does not depend on the batch.

    Args:
        n_levels: Maps per image.
        gather: In training, let images see those of all processes.
        eval_context: 'bank', or 'batch': outputs depend on the batch, with a warning;
            else a ValueError.
    """

    def __init__(
        self,
        n_levels: int,
        gather: bool = False,
        eval_context: str = 'bank',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self._check_choice('eval_context', eval_context, ('bank', 'batch'))
        if eval_context == 'batch':
            warnings.warn(
                "eval_context='batch': an output depends on the other images of its "
                'batch, in evaluation and scoring too.',
                stacklevel=3,
            )
        self.gather = gather
        self.eval_context = eval_context
        self.banks = nn.ModuleList(ContextBank() for _ in range(n_levels))
        self._recorded: list[list[Tensor]] | None = None

    @staticmethod
    def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
        if value not in choices:
            raise ValueError(f'{name} must be one of {choices}, got {value!r}')

    def forward(
        self, inputs: Tensor | Sequence[Tensor], valid: Valid = None
    ) -> Tensor | list[Tensor]:
        """The same shapes from (B, F) or (B, F, H, W), or one such tensor per level.

        Args:
            inputs: See above.
            valid: What of the maps lies on the images, see ``Valid``.

        Raises:
            ValueError: If the bottleneck cannot take a batch of this size.
            RuntimeError: In eval mode, if the context bank is empty.
        """
        if isinstance(inputs, Tensor):
            return self._forward_level(0, inputs, valid)
        return [self._forward_level(i, x, valid) for i, x in enumerate(inputs)]

    def _forward_level(self, level: int, x: Tensor, valid: Valid) -> Tensor:
        if self._recorded is not None:
            self._recorded[level].append(self._seen_by_others(x.detach(), valid))
            return x
        if not self.training and self.eval_context == 'bank':
            return self._in_bank(level, x, self.banks[level].read(), valid)
        batch, rows = self._seen_by_others(x, valid), slice(None)
        # Only in training do all processes run equally many batches.
        if self.gather and self.training and dist.get_world_size() > 1:
            rows = slice(dist.get_rank() * len(x), (dist.get_rank() + 1) * len(x))
            batch = _GatherBatch.apply(batch)
        return self._in_batch(level, x, batch, rows)

    def _seen_by_others(self, x: Tensor, valid: Valid) -> Tensor:
        """What other images see of these, and the bank keeps: (B, F, ...)."""
        return pool_locations(x, valid)

    @abstractmethod
    def _in_batch(self, level: int, x: Tensor, batch: Tensor, rows: slice) -> Tensor:
        """Outputs (B, F, ...) of ``x``, the ``rows`` of all processes' ``batch``."""

    @abstractmethod
    def _in_bank(self, level: int, x: Tensor, bank: Tensor, valid: Valid) -> Tensor:
        """Outputs of images (B, F, ...), each with itself and the bank, (M, F, ...)."""

    @contextlib.contextmanager
    def recording(self) -> Iterator[None]:
        """Fill the banks with the inputs of forward passes, which return them."""
        self._recorded = [[] for _ in self.banks]
        try:
            yield
            recorded = self._recorded
        finally:
            self._recorded = None
        for bank, inputs in zip(self.banks, recorded, strict=True):
            if inputs:
                bank.fill(torch.cat(inputs))


def pool_locations(x: Tensor, valid: Valid = None) -> Tensor:
    """Average over locations on the image: (B, F, ...) to (B, F)."""
    if valid is not None and x.ndim == 4:
        parts = crop_to_valid(x, valid)
        return torch.cat([part.flatten(2).mean(2) for part in parts])
    return x.flatten(2).mean(2) if x.ndim > 2 else x


def crop_to_valid(x: Tensor, valid: Sequence[tuple]) -> list[Tensor]:
    """The part of every map (B, F, H, W) that lies on its image, (1, F, h, w)."""
    height, width = x.shape[2:]
    return [
        one[None, :, : math.ceil(height * down), : math.ceil(width * across)]
        for one, (down, across) in zip(x, valid, strict=True)
    ]


def add_to_locations(x: Tensor, update: Tensor) -> Tensor:
    """Add (B, F) to every location of (B, F, ...)."""
    return x + update.reshape(*update.shape, *[1] * (x.ndim - 2))


def batch_bottlenecks(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that have a context bank to fill."""
    found = (m for m in model.modules() if hasattr(m, 'recording'))
    return [m for m in found if getattr(m, 'eval_context', None) == 'bank']


def clear_context_banks(model: nn.Module) -> None:
    """Empty them: the weights go on changing."""
    for bank in _banks(model):
        bank.clear()


def _banks(model: nn.Module) -> list[ContextBank]:
    return [bank for module in batch_bottlenecks(model) for bank in module.banks]


@torch.no_grad()
def fill_context_banks(
    model: nn.Module, batches: Sequence[dict], broadcast: bool = True
) -> None:
    """Fill every context bank of a BaseModel, whose mode is left as it was.

    Args:
        batches: Collated, of the test pipeline: ⌈B/2⌉ labelled images first, B - 1 in
            all together.
        broadcast: Copy the banks of process 0 to the others.
    """
    bottlenecks = batch_bottlenecks(model)
    if not bottlenecks:
        return
    was_training = model.training
    model.eval()
    with contextlib.ExitStack() as stack:
        for bottleneck in bottlenecks:
            stack.enter_context(bottleneck.recording())
        for batch in batches:
            model(**model.data_preprocessor(batch, False), mode='tensor')
    model.train(was_training)
    if broadcast:
        for bank in _banks(model):
            dist.broadcast(bank.inputs)
