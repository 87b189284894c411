"""Run a learner over a data set and store what it says."""

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmengine.dist import get_dist_info
from torch import Tensor
from torch.utils.data import DataLoader

from tjls_mm.errors import InputError
from tjls_mm.files import file_hash
from tjls_mm.outputs.outputs import BOX_COUNT, Outputs
from tjls_mm.outputs.readers import DropoutMasks, find_reader
from tjls_mm.outputs.shards import ShardedStore
from tjls_mm.outputs.vocabulary import PASS_NAMES
from tjls_mm.processes import on_every_process, on_main_process
from tjls_mm.progress import progress


class FixedShapeBatches:
    """Batches of one size over one of several contiguous blocks of rows.

    The last batch of all is filled up with its last image: a convolution may round
    otherwise in a batch of another shape.

    Args:
        order: Position in the data set of every row.
        batch_size: Images per batch.
        rank: Of this process.
        world_size: Number of processes; blocks differ by one batch at most.
    """

    def __init__(
        self, order: Sequence[int], batch_size: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.order = order
        self.batch_size = batch_size
        count = -(-len(order) // batch_size)
        first, last = (count * r // world_size for r in (rank, rank + 1))
        self.starts = range(first * batch_size, last * batch_size, batch_size)

    def __len__(self) -> int:
        return len(self.starts)

    def rows(self) -> Iterator[range]:
        """Rows of each batch, without those that only fill it up."""
        for start in self.starts:
            yield range(start, min(start + self.batch_size, len(self.order)))

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.rows():
            filling = self.batch_size - len(rows)
            yield [self.order[row] for row in (*rows, *[rows[-1]] * filling)]


def gather_outputs(
    model: torch.nn.Module,
    dataset,
    folder: str | Path,
    names: Sequence[str],
    *,
    list_file: str | Path,
    batch_size: int,
    passes: int = 0,
    dropout: float = 0.5,
    num_workers: int = 0,
    seed: int = 0,
    description: str = 'Scoring',
) -> Outputs:
    """Outputs of a learner for every image of a data set, on all processes.

    They are computed in eval mode, without gradients and outside autocast. Every
    process writes the shard of its block of images, process 0 joins them. What is in
    the folder already, of the same weights, images, names and number of processes, is
    not computed again.

    Args:
        model: Learner, not wrapped, with the weights to use; its mode is left as it
            was.
        dataset: Images through the test pipeline; ``get_data_info(i)`` says
            ``image_id``. Their order does not matter.
        folder: Where to write, one for all processes; what else is in it goes.
        names: Outputs to gather (see ``vocabulary``).
        list_file: Of the images; the outputs belong to it from then on.
        batch_size: Images per forward pass; every pass has exactly as many.
        passes: Stochastic passes of the head, for the names that they make.
        dropout: Probability that a pass drops a feature.
        num_workers: Of the data loader, per process.
        seed: Of the dropout.
        description: Shown before the progress bar.

    Returns:
        The outputs, memory-mapped. ``box_feature`` brings ``boxes`` along.

    Raises:
        InputError: If the learner cannot provide a name, or files cannot be written.
        TrainingDiverged: If class logits of boxes are not finite.
    """
    folder, names = Path(folder), list(dict.fromkeys(names))
    if 'box_feature' in names and 'boxes' not in names:
        names.append('boxes')
    if not set(names) & set(PASS_NAMES):
        passes = 0
    elif passes < 1:
        raise InputError(f'{names} need at least 1 stochastic pass, got {passes}.')
    reader = find_reader(model)
    missing = sorted(set(names) - set(reader.provides(model) if reader else ()))
    if missing:
        remedy = reader.remedy(missing[0]) if reader else 'no reader knows it'
        raise InputError(
            f'{type(model).__name__} does not provide {missing[0]!r}: {remedy}.'
        )
    ids = [dataset.get_data_info(i)['image_id'] for i in range(len(dataset))]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    image_ids = [ids[i] for i in order]
    if not ids or len(set(ids)) < len(ids):
        raise InputError(
            f'{list_file}: {len(ids)} images, {len(set(ids))} different ones. Expected '
            'at least one, and each once.'
        )
    rank, world_size = get_dist_info()

    store = ShardedStore(folder, image_ids, world_size)

    def prepare() -> list[int] | None:
        return store.prepare(
            {
                'list_sha256': file_hash(list_file),
                'weights': fingerprint(model),
                'names': names,
                'passes': passes,
                'dropout': dropout if passes else None,
                'seed': seed if passes else None,
                'batch_size': batch_size,
            }
        )

    done = on_main_process(prepare)
    batches = FixedShapeBatches(order, batch_size, rank, world_size)

    def read() -> Iterator[dict[str, np.ndarray]]:
        loader = DataLoader(
            dataset,
            batch_sampler=batches,
            num_workers=num_workers,
            collate_fn=pseudo_collate,
        )
        shown = progress(loader, description, len(batches))
        for batch, rows in zip(shown, batches.rows(), strict=True):
            own = [image_ids[row] for row in rows]
            own += own[-1:] * (batch_size - len(own))
            masks = DropoutMasks(own, passes, dropout, seed)
            data = model.data_preprocessor(batch, False)
            yield flatten(reader.read(model, data, names, masks), len(rows))

    def write_shard() -> None:
        if rank not in done:
            _in_eval_mode(model, store.write_shard, rank, read())

    if done is not None:
        on_every_process(write_shard)
        on_main_process(store.join, names)
    return Outputs.open(folder)


@torch.no_grad()
def _in_eval_mode(model: torch.nn.Module, work, *args) -> None:
    # One by one: a part that stands still in training must stand still after.
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    device = next(model.parameters()).device.type
    try:
        with torch.autocast(device, enabled=False):
            work(*args)
    finally:
        for module, training in modes:
            module.training = training


def flatten(outputs: dict, n_images: int) -> dict[str, np.ndarray]:
    """Outputs of a batch as rows of files.

    Args:
        outputs: Of ``PoolReader.read``.
        n_images: Images in front that count; the others fill the batch up.

    Returns:
        File names without suffix to arrays.
    """
    flat = {}
    for name, value in outputs.items():
        value = value[:n_images]
        if name == 'boxes':
            flat[BOX_COUNT] = np.array([len(boxes.scores) for boxes in value], np.int32)
            for field, key in (
                ('xyxy', 'bboxes'),
                ('score', 'scores'),
                ('label', 'labels'),
                ('probability', 'probs'),
            ):
                dtype = np.int32 if field == 'label' else np.float32
                rows = torch.cat([getattr(boxes, key) for boxes in value])
                flat[f'boxes.{field}'] = rows.cpu().numpy().astype(dtype)
        elif name == 'box_feature':
            flat[name] = torch.cat(value).half().cpu().numpy()
        else:
            flat[name] = value.float().cpu().numpy()
    return flat


def fingerprint(model: torch.nn.Module) -> str:
    """Hash of all weights and buffers: shards of other weights must not be joined."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in model.state_dict().items():
        digest.update(f'{name} {tuple(value.shape)} {value.dtype}'.encode())
        if isinstance(value, Tensor) and value.numel():
            raw = value.detach().contiguous().cpu().flatten().view(torch.uint8)
            digest.update(raw.numpy())
    return digest.hexdigest()
