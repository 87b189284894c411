"""Which images make up training batch k."""

import functools
import itertools
from collections.abc import Iterator

import numpy as np
from mmengine.dist import get_dist_info

from tjls_mm.randomness import derive_seed, generator
from tjls_mm.registry import DATA_SAMPLERS


@DATA_SAMPLERS.register_module()
class JointBatchSampler:
    """Batches of labelled and pool images, a pure function of seed, stage and k.

    Labelled and pool images are endless streams of shuffled passes: every batch is
    full, a batch may span two passes, and the pool repeats where it is shorter.
    n processes with batches of B/n see the images of one with batches of B.

    Args:
        sampler: A sampler of MMEngine, for its ``dataset`` (a JointDataset) and,
            where ``seed`` is None, its seed.
        batch_size: Labelled images per process and iteration of the task.
        composition: 'mixed', as many pool images beside them in a seeded order, or
            'pure', batches of labelled and of pool images in turn.
        update: 'joint', or 'alternate': with 'mixed' every batch is served twice,
            for the task's and for the sampler's update.
        pool_ratio: Pool images that training may see, per labelled image.
        redraw_pool: Draw those pool images anew for every pass over them.
        accumulative_counts: Iterations per update: 'alternate' repeats so many batches.
        seed, stage: Of the trial.
    """

    def __init__(
        self,
        sampler,
        batch_size: int,
        composition: str = 'mixed',
        update: str = 'joint',
        pool_ratio: float = 1.0,
        redraw_pool: bool = False,
        accumulative_counts: int = 1,
        seed: int | None = None,
        stage: int = 0,
    ) -> None:
        if composition not in ('mixed', 'pure'):
            raise ValueError(f"composition: 'mixed' or 'pure', got {composition!r}")
        if update not in ('joint', 'alternate'):
            raise ValueError(f"update must be 'joint' or 'alternate', got {update!r}")
        if pool_ratio <= 0:
            raise ValueError(f'pool_ratio must be positive, got {pool_ratio}')
        self.sampler = sampler
        self.batch_size = batch_size
        self.n_labelled = sampler.dataset.n_labelled
        self.n_pool = sampler.dataset.n_pool
        self.composition = composition if self.n_pool else 'plain'
        self.repeats = 2 if (update, self.composition) == ('alternate', 'mixed') else 1
        self.accumulative_counts = accumulative_counts
        self.pool_size = min(max(1, round(pool_ratio * self.n_labelled)), self.n_pool)
        self.redraw_pool = redraw_pool
        self.seed = int(sampler.seed if seed is None else seed)
        self.stage = stage
        pool = getattr(sampler.dataset, 'pool', None)
        self.mixes = getattr(pool, 'mixes', False)
        if self.mixes and not redraw_pool:
            # What training may see is what it may be shown parts of.
            pool.partners = self._pool_subset(0)
        self.rank, self.world_size = get_dist_info()
        self._start = 0
        self._unique = False

    def start_at(self, iteration: int, unique: bool = False) -> None:
        """Let the next iterator begin there; ``unique``: count batches, each once."""
        self._start, self._unique = iteration, unique

    def batch_number(self, iteration: int) -> int:
        """Which batch an iteration trains on."""
        if self.repeats == 1:
            return iteration
        block = iteration // (self.repeats * self.accumulative_counts)
        return block * self.accumulative_counts + iteration % self.accumulative_counts

    def __len__(self) -> int:
        """Batches of one pass over the labelled images, rounded up."""
        return -(-self.n_labelled // (self.batch_size * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for iteration in itertools.count(self._start):
            number = iteration if self._unique else self.batch_number(iteration)
            yield self.batch(number)

    def batch(self, number: int) -> list[tuple[int, int]]:
        """(index in the JointDataset, seed) per image of this process, from batch 0."""
        size, total = self.batch_size, self.batch_size * self.world_size
        rows = range(self.rank * size, (self.rank + 1) * size)
        if self.composition == 'pure':
            part = self._pool if number % 2 else self._labelled
            images = part(number // 2 * total, total)
        else:
            images = self._labelled(number * total, total)
        if self.composition == 'mixed':
            images += self._pool(number * total, total)
            # With a fixed layout an image's slot would tell its membership.
            rng = generator(self.seed, self.stage, 'order', number, self.rank)
            rows = rng.permutation([*rows, *(row + total for row in rows)])
        return [
            (images[row], derive_seed(self.seed, self.stage, 'sample', number, row))
            for row in map(int, rows)
        ]

    def _labelled(self, start: int, count: int) -> list[int]:
        stream = self._stream('labelled', self.n_labelled, start, count)
        return [int(row) for _, row in stream]

    def _pool(self, start: int, count: int) -> list[int]:
        stream = self._stream('pool', self.pool_size, start, count)
        return [self.n_labelled + int(self._pool_subset(t)[row]) for t, row in stream]

    def _stream(self, part: str, length: int, start: int, count: int) -> Iterator:
        """(pass, row) of a stretch of an endless stream of shuffled passes."""
        for position in range(start, start + count):
            turn, i = divmod(position, length)
            yield turn, _pass_order(self.seed, self.stage, part, turn, length)[i]

    def _pool_subset(self, turn: int) -> np.ndarray:
        draw = turn if self.redraw_pool else 0
        return _subset(self.seed, self.stage, draw, self.n_pool, self.pool_size)

    def pool_images_seen(self, n_batches: int) -> set[int]:
        """Positions, in [0, n_pool), that the stage's first batches of all hold."""
        if self.composition == 'plain':
            return set()
        if self.mixes:
            seen = range(self.n_pool) if self.redraw_pool else self._pool_subset(0)
            return set(map(int, seen))
        count = n_batches // 2 if self.composition == 'pure' else n_batches
        count *= self.batch_size * self.world_size
        if not self.redraw_pool and count >= self.pool_size:
            return set(map(int, self._pool_subset(0)))
        return {i - self.n_labelled for i in self._pool(0, count)}


@functools.lru_cache(maxsize=8)
def _pass_order(seed: int, stage: int, part: str, turn: int, length: int) -> np.ndarray:
    return generator(seed, stage, part, turn).permutation(length)


@functools.lru_cache(maxsize=4)
def _subset(seed: int, stage: int, draw: int, length: int, size: int) -> np.ndarray:
    rng = generator(seed, stage, 'pool subset', draw)
    return np.sort(rng.choice(length, size, replace=False))
