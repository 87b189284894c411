"""What every batch bottleneck shares: context bank, gathering, batch independence.

Letters used for shapes: ``B`` images of the batch, ``F`` features of a map, ``M``
images in the context bank, ``L`` levels (scales) of a detector.
"""

import contextlib
import warnings
from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from mmengine import dist
from mmengine.model import BaseModule
from torch import Tensor, nn


class _GatherBatch(torch.autograd.Function):
    """All processes' batches, one after the other by rank, with their gradient.

    Backward sums what every process asks of a row and hands each process its own
    rows. Averaged over processes by DistributedDataParallel, that is the gradient
    of the mean loss over the joint batch.
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

    Like the running statistics of batch normalisation, the bank makes the output
    of an image independent of its batch mates, and it travels with the checkpoint of
    the weights it was computed with. It is no buffer: an average of weights over
    updates (EMA) has a bank of its own, not an average of banks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.inputs = torch.empty(0)

    def fill(self, inputs: Tensor) -> None:
        """Replace the content by what was seen of the reference images, (M, F, ...)."""
        self.inputs = inputs.detach().clone()

    def read(self) -> Tensor:
        """The content, (M, F, ...); RuntimeError if the bank was never filled."""
        if not self.inputs.numel():
            raise RuntimeError(
                'The context bank is empty, and in eval mode an image attends to it: '
                'register tjls_mm.ContextBankHook, load a checkpoint that has it, or '
                'call tjls_mm.models.fill_context_banks(model, batches). '
                "eval_context='batch' does without, but outputs depend on the batch."
            )
        return self.inputs

    def clear(self) -> None:
        """Forget the content: the weights go on changing."""
        self.inputs = self.inputs.new_empty(0)

    def _apply(self, fn, recurse: bool = True) -> 'ContextBank':
        self.inputs = fn(self.inputs)
        return super()._apply(fn, recurse)

    def _save_to_state_dict(self, destination, prefix, keep_vars) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + 'inputs'] = self.inputs

    def _load_from_state_dict(
        self, state_dict, prefix, metadata, strict, missing, *others
    ) -> None:
        kept = dict(state_dict)
        saved = kept.pop(prefix + 'inputs', None)
        if saved is None:
            missing.append(prefix + 'inputs')
        else:
            self.inputs = saved.detach().to(self.inputs, copy=True)
        super()._load_from_state_dict(kept, prefix, metadata, strict, missing, *others)


class BatchBottleneck(BaseModule):
    """Base of modules in which the images of a batch inform each other.

    In train mode an image sees its batch mates. In eval mode it sees the context
    bank in their place, so its output does not depend on the batch.

    Args:
        n_levels: ``L``, maps per image.
        gather: In training, let images see those of all processes.
        eval_context: 'bank', or 'batch' to see the batch in eval mode too, which
            makes outputs depend on the batch and warns.
        init_cfg: Initialisation config of MMEngine.

    Raises:
        ValueError: If ``eval_context`` is not one of the above.
    """

    def __init__(
        self,
        n_levels: int,
        gather: bool = False,
        eval_context: str = 'bank',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        check_choice('eval_context', eval_context, ('bank', 'batch'))
        if eval_context == 'batch':
            warnings.warn(
                "eval_context='batch': the output of an image depends on the other "
                'images of its batch, in evaluation and scoring too.',
                stacklevel=3,
            )
        self.gather = gather
        self.eval_context = eval_context
        self.banks = nn.ModuleList(ContextBank() for _ in range(n_levels))
        self._recorded: list[list[Tensor]] | None = None

    def forward(self, inputs: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        """Let the images of a batch (or of the bank) inform each other.

        Args:
            inputs: Features (B, F) or (B, F, H, W), or one such tensor per level.

        Returns:
            The same shapes; a list where a sequence was given.

        Raises:
            ValueError: If the bottleneck cannot take a batch of this size.
            RuntimeError: In eval mode, if the context bank is empty.
        """
        if isinstance(inputs, Tensor):
            return self._forward_level(0, inputs)
        return [self._forward_level(i, x) for i, x in enumerate(inputs)]

    def _forward_level(self, level: int, x: Tensor) -> Tensor:
        if self._recorded is not None:
            self._recorded[level].append(self._seen_by_others(x.detach()))
            return x
        if not self.training and self.eval_context == 'bank':
            return self._in_bank(level, x, self.banks[level].read())
        batch, rows = self._seen_by_others(x), slice(None)
        # Only in training do all processes run equally many batches.
        if self.gather and self.training and dist.get_world_size() > 1:
            rows = slice(dist.get_rank() * len(x), (dist.get_rank() + 1) * len(x))
            batch = _GatherBatch.apply(batch)
        return self._in_batch(level, x, batch, rows)

    def _seen_by_others(self, x: Tensor) -> Tensor:
        """What other images see of these, and the bank keeps: (B, F, ...)."""
        return pool_locations(x)

    @abstractmethod
    def _in_batch(self, level: int, x: Tensor, batch: Tensor, rows: slice) -> Tensor:
        """Outputs of this process's images ``x``, (B, F, ...), among a whole batch.

        ``batch`` is what is seen of the images of all processes; ``rows`` are those
        of ``x`` in it.
        """

    @abstractmethod
    def _in_bank(self, level: int, x: Tensor, bank: Tensor) -> Tensor:
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


def pool_locations(x: Tensor) -> Tensor:
    """Average over locations: (B, F, ...) to (B, F)."""
    return x.flatten(2).mean(2) if x.ndim > 2 else x


def add_to_locations(x: Tensor, update: Tensor) -> Tensor:
    """Add (B, F) to every location of (B, F, ...)."""
    return x + update.reshape(*update.shape, *[1] * (x.ndim - 2))


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ValueError unless a setting is one of its choices."""
    if value not in choices:
        raise ValueError(f'{name} must be one of {choices}, got {value!r}')


def batch_bottlenecks(model: nn.Module) -> list[nn.Module]:
    """The modules of a model that have a context bank to fill."""
    found = (m for m in model.modules() if hasattr(m, 'recording'))
    return [m for m in found if getattr(m, 'eval_context', None) == 'bank']


def clear_context_banks(model: nn.Module) -> None:
    """Empty every context bank of a model."""
    for bank in _banks(model):
        bank.clear()


def _banks(model: nn.Module) -> list[ContextBank]:
    return [bank for module in batch_bottlenecks(model) for bank in module.banks]


@torch.no_grad()
def fill_context_banks(
    model: nn.Module, batches: Sequence[dict], broadcast: bool = True
) -> None:
    """Fill every context bank of a model from reference images.

    Args:
        model: A BaseModel of MMEngine. Its mode is left as it was.
        batches: Collated batches of the test pipeline, all reference images of
            the bank together: ⌈B/2⌉ labelled ones first, B - 1 in all.
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
