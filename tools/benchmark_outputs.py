"""Time and memory of the store of pool outputs, on made-up numbers.

    python tools/benchmark_outputs.py scalar --images 1000000
    python tools/benchmark_outputs.py boxes --images 16551

``scalar`` writes, reads and selects by one number per image; ``boxes`` writes two
shards of boxes with class probabilities and features, joins them and reduces them to
numbers per image. Each prints seconds per step and the peak of resident memory, in
which pages of memory-mapped files count.
"""

import argparse
import contextlib
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from tjls_mm.outputs import Outputs, check_finite
from tjls_mm.outputs.shards import ShardedStore
from tjls_mm.query import Discriminator, check_selection, write_selection

BATCH = 32


@contextlib.contextmanager
def step(name: str):
    """Print the seconds that a step takes, and the peak of memory after it."""
    started = time.perf_counter()
    yield
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f'{name:8} {seconds:7.2f} s   peak so far {peak:.2f} GiB')


def scalar(folder: Path, images: int, args) -> None:
    """One number per image."""
    ids = [f'images/{i:07d}' for i in range(images)]
    logits = np.random.default_rng(0).normal(size=images).astype(np.float32)
    with step('write'):
        store = ShardedStore(folder / 'pool', ids, 1)
        store.prepare({'list_sha256': ''})
        starts = range(0, images, BATCH)
        store.write_shard(0, ({'logit': logits[i : i + BATCH]} for i in starts))
        store.join(['logit'])
    with step('read'):
        pool = Outputs.open(folder / 'pool')
        check_finite(pool, 'pool images')
    with step('select'):
        strategy = Discriminator('lowest')
        answer = strategy.select(pool, pool, args.budget, 0)
        selection = check_selection(answer, images, args.budget, 'lowest')
    with step('csv'):
        path = folder / 'selection.csv'
        write_selection(path, pool, selection.rows, selection.columns)


def boxes(folder: Path, images: int, args) -> None:
    """Boxes of images, ``--boxes`` of each."""
    ids = [f'images/{i:07d}' for i in range(images)]
    rng = np.random.default_rng(0)

    def batches(start: int, stop: int):
        for first in range(start, stop, BATCH):
            n = min(BATCH, stop - first)
            m = n * args.boxes
            yield {
                'boxes.count': np.full(n, args.boxes, np.int32),
                'boxes.xyxy': rng.random((m, 4), np.float32),
                'boxes.score': rng.random(m, np.float32),
                'boxes.label': np.zeros(m, np.int32),
                'boxes.probability': rng.random((m, args.classes), np.float32),
                'box_feature': rng.random((m, args.features), np.float32).astype('f2'),
            }

    store = ShardedStore(folder / 'pool', ids, 2)
    store.prepare({'list_sha256': ''})
    for rank in range(2):
        with step(f'shard {rank}'):
            half = images // 2
            edges = (0, half) if rank == 0 else (half, images)
            store.write_shard(rank, batches(*edges))
    with step('join'):
        store.join(['boxes', 'box_feature'])
    with step('read'):
        pool = Outputs.open(folder / 'pool')
        check_finite(pool, 'pool images')
    with step('reduce'):
        found = pool['boxes']
        probability = found.probability
        entropy = -(probability * np.log(probability + 1e-12)).sum(1)
        for how in ('sum', 'mean', 'max'):
            found.reduce(entropy, how)
        found.reduce(found.feature, 'mean')
    size = sum(path.stat().st_size for path in (folder / 'pool').iterdir())
    print(f'{found.offsets[-1]} boxes, files of {size / 2**30:.2f} GiB')


def main() -> None:
    """Run one benchmark in a temporary folder."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('what', choices=['scalar', 'boxes'])
    parser.add_argument('--images', type=int, default=16_551)
    parser.add_argument('--budget', type=int, default=1000)
    parser.add_argument('--boxes', type=int, default=100, help='per image')
    parser.add_argument('--classes', type=int, default=21)
    parser.add_argument('--features', type=int, default=256)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        {'scalar': scalar, 'boxes': boxes}[args.what](Path(folder), args.images, args)


if __name__ == '__main__':
    main()
