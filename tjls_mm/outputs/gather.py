"""Run a learner over a data set and store what it says."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
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
from tjls_mm.outputs.readers import DropoutMasks, find_reader, no_reader
from tjls_mm.outputs.shards import ShardedStore
from tjls_mm.outputs.vocabulary import BOX_FIELDS, BOX_NAMES, PASS_NAMES
from tjls_mm.processes import on_every_process, on_main_process
from tjls_mm.progress import progress


def fixed_shape_batches(
    n_images: int, batch_size: int, rank: int = 0, world_size: int = 1
) -> list[list[int]]:
    """Rows of every batch of one process, all batches of one size.

    Processes have contiguous blocks that differ by one batch at most. The last batch is
    filled up with its last row: a convolution may round otherwise in another shape.
    """
    count = -(-n_images // batch_size)
    first, last = (count * r // world_size for r in (rank, rank + 1))
    return [
        [min(batch * batch_size + i, n_images - 1) for i in range(batch_size)]
        for batch in range(first, last)
    ]


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
    shards: int = 1,
) -> Outputs:
    """Outputs of a learner for every image of a data set, on all processes.

    Computed in eval mode, without gradients, outside autocast; what the folder holds of
    the same weights, images, names and number of shards is not computed again.

    Args:
        model: Learner, not wrapped; its mode is left as it was.
        dataset: Images through the test pipeline, in any order;
            ``get_data_info(i)`` says ``image_id``.
        folder: Where to write, one for all processes; what else is in it goes.
        names: Of ``vocabulary``; ``box_feature`` brings ``boxes`` along.
        list_file: Of the images; the outputs belong to it from then on.
        batch_size: Images per forward pass; every pass has exactly as many.
        passes: Stochastic passes of the head, for the names that they make.
        dropout: Probability that a pass drops a feature; ``seed`` is its seed.
        num_workers: Of the data loader, per process.
        description: Shown before the progress bar.
        shards: Parts that each process writes one by one; a kill costs one of them.

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
    for name in sorted(names):
        if reader is None or name not in reader.provides(model):
            remedy = reader.remedy(name) if reader else no_reader(model)
            raise InputError(
                f'{type(model).__name__} does not provide {name!r}: {remedy}.'
            )
    ids = [dataset.get_data_info(i)['image_id'] for i in range(len(dataset))]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    image_ids = [ids[i] for i in order]
    if not ids or len(set(ids)) < len(ids):
        found = f'{len(ids)} images, {len(set(ids))} different ones'
        raise InputError(f'{list_file}: {found}. Expected at least one, and each once.')
    rank, world_size = get_dist_info()
    n_shards = world_size * shards
    store = ShardedStore(folder, image_ids, n_shards)

    def prepare() -> list[int] | None:
        made_of = {
            'list_sha256': file_hash(list_file),
            'weights': fingerprint(model),
            'names': names,
            'passes': passes,
            'dropout': dropout if passes else None,
            'seed': seed if passes else None,
            'batch_size': batch_size,
        }
        return store.prepare(made_of)

    def read(batches: list[list[int]]) -> Iterator[dict[str, np.ndarray]]:
        loader = DataLoader(
            dataset,
            batch_sampler=[[order[row] for row in rows] for rows in batches],
            num_workers=num_workers,
            collate_fn=pseudo_collate,
        )
        shown = progress(loader, description, len(batches))
        for batch, rows in zip(shown, batches, strict=True):
            masks = DropoutMasks([image_ids[r] for r in rows], passes, dropout, seed)
            data = model.data_preprocessor(batch, False)
            yield flatten(reader.read(model, data, names, masks), len(set(rows)))

    def write_shards() -> None:
        own = range(rank * shards, (rank + 1) * shards)
        batches = {
            shard: fixed_shape_batches(len(ids), batch_size, shard, n_shards)
            for shard in own
            if shard not in done
        }
        if not batches:
            return
        # One loader, whose bar shows all that is left.
        found = read(sum(batches.values(), []))
        with _evaluating(model):
            for shard, rows in batches.items():
                store.write_shard(shard, islice(found, len(rows)))
            # The bar ends where its loop does.
            next(found, None)

    done = on_main_process(prepare)
    if done is not None:
        on_every_process(write_shards)
        on_main_process(store.join, names)
    return Outputs.open(folder)


@contextmanager
def _evaluating(model: torch.nn.Module) -> Iterator[None]:
    # One by one: a part that stands still in training must stand still after.
    modes = {module: module.training for module in model.modules()}
    model.eval()
    device = next(model.parameters()).device.type
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            yield
    finally:
        for module, training in modes.items():
            module.training = training


def flatten(outputs: dict, n_images: int) -> dict[str, np.ndarray]:
    """Rows of files of a batch, of the first ``n_images``; the others fill it up."""
    flat = {}
    for name, value in outputs.items():
        value = value[:n_images]
        if name in BOX_NAMES:
            counts = [len(boxes) for boxes in value]
            flat[f'{name}.{BOX_COUNT}'] = np.array(counts, np.int32)
            keys = ('bboxes', 'scores', 'labels', 'probs', 'priors')
            for field, key in zip(BOX_FIELDS, keys, strict=True):
                rows = torch.cat([boxes[key] for boxes in value]).cpu().numpy()
                dtype = np.int32 if field in ('label', 'prior') else np.float32
                flat[f'{name}.{field}'] = rows.astype(dtype)
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
