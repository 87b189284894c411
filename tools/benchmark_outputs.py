"""Time and memory of the store of pool outputs, on made-up numbers.

    python tools/benchmark_outputs.py scalar --images 1000000
    python tools/benchmark_outputs.py boxes --images 16551

``scalar`` writes, reads and selects by one number per image; ``boxes`` joins two shards
of boxes with class probabilities and features and reduces them to numbers per image.
Each prints seconds per step and the peak of resident memory, in which pages of
memory-mapped files count.
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


def batches(args, rng, start: int, stop: int):
    """What a reader would give of some images."""
    for first in range(start, stop, BATCH):
        n = min(BATCH, stop - first)
        if args.what == 'scalar':
            yield {'logit': rng.standard_normal(n, np.float32)}
            continue
        m = n * args.boxes
        yield {
            'boxes.count': np.full(n, args.boxes, np.int32),
            'boxes.xyxy': rng.random((m, 4), np.float32),
            'boxes.score': rng.random(m, np.float32),
            'boxes.label': np.zeros(m, np.int32),
            'boxes.probability': rng.random((m, args.classes), np.float32),
            'box_feature': rng.random((m, args.features), np.float32).astype('f2'),
        }


def benchmark(folder: Path, args) -> None:
    """Write, join and read outputs; select by them or reduce them."""
    rng = np.random.default_rng(0)
    names, shards = ['logit'], 1
    if args.what == 'boxes':
        names, shards = ['boxes', 'box_feature'], 2
    with step('prepare'):
        ids = [f'images/{i:07d}' for i in range(args.images)]
        store = ShardedStore(folder / 'pool', ids, shards)
        store.prepare({'list_sha256': ''})
    edges = [args.images * i // shards for i in range(shards + 1)]
    for rank in range(shards):
        with step(f'shard {rank}'):
            store.write_shard(rank, batches(args, rng, edges[rank], edges[rank + 1]))
    with step('join'):
        store.join(names)
    with step('read'):
        pool = Outputs.open(folder / 'pool')
        check_finite(pool, 'pool images')
    if args.what == 'scalar':
        with step('select'):
            answer = Discriminator('lowest').select(pool, pool, args.budget, 0)
            selection = check_selection(answer, args.images, args.budget, 'lowest')
        with step('csv'):
            path = folder / 'selection.csv'
            write_selection(path, pool, selection.rows, selection.columns)
    else:
        with step('reduce'):
            boxes = pool['boxes']
            p = boxes.probability
            entropy = -(p * np.log(p + 1e-12)).sum(1)
            for how in ('sum', 'mean', 'max'):
                boxes.reduce(entropy, how)
            boxes.reduce(boxes.feature, 'mean')
    size = sum(path.stat().st_size for path in (folder / 'pool').iterdir())
    print(f'files of {size / 2**30:.2f} GiB')


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('what', choices=['scalar', 'boxes'])
    parser.add_argument('--images', type=int, default=16_551)
    parser.add_argument('--budget', type=int, default=1000)
    parser.add_argument('--boxes', type=int, default=100, help='per image')
    parser.add_argument('--classes', type=int, default=21)
    parser.add_argument('--features', type=int, default=256)
    with tempfile.TemporaryDirectory() as temporary:
        benchmark(Path(temporary), parser.parse_args())
