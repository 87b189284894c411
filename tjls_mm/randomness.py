"""Random choices as pure functions of (seed, stage, purpose)."""

import contextlib
import hashlib
import random
from collections.abc import Iterator, Sequence

import numpy as np


def derive_seed(seed: int, *keys: int | str) -> int:
    """A seed of its own for every purpose.

    Args:
        seed: Seed of the trial.
        keys: Stage, purpose and what else the choice depends on.

    Returns:
        An integer in [0, 2**32), the same on every machine.
    """
    text = '\x1f'.join(str(key) for key in (seed, *keys))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), 'big')


def generator(seed: int, *keys: int | str) -> np.random.Generator:
    """A NumPy generator of its own for every purpose (see ``derive_seed``)."""
    return np.random.default_rng(derive_seed(seed, *keys))


def tie_break(image_id: str, seed: int) -> int:
    """Order of an image among equals; a plain id would order by class folder."""
    return derive_seed(seed, 'tie', image_id)


@contextlib.contextmanager
def seeded_pipeline(seed: int) -> Iterator[None]:
    """Seed what data transforms draw from, and give the old states back after.

    Args:
        seed: In [0, 2**32).
    """
    import torch

    states = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.set_rng_state(states[2])


def uniform_numbers(seeds: Sequence[int], count: int) -> np.ndarray:
    """Random numbers of many seeds at once, each row a function of its seed.

    A NumPy generator per seed would take a thousand times as long.

    Args:
        seeds: B integers in [0, 2**64).
        count: Numbers per seed.

    Returns:
        (B, count), float64, uniform in [0, 1).

    Source: SplitMix64 (Steele, Lea and Flood, 2014).
    """
    steps = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    # The first mixing takes apart seeds that differ by a multiple of the step.
    state = _mix(np.asarray(seeds, dtype=np.uint64))[:, None] + steps
    return (_mix(state) >> np.uint64(11)) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
