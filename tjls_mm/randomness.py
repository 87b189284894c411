"""Random choices as pure functions of (seed, stage, purpose)."""

import contextlib
import hashlib
import random
from collections.abc import Iterator, Sequence

import numpy as np


def derive_seed(seed: int, *keys: int | str) -> int:
    """In [0, 2**32), of the trial's seed, stage and purpose; equal on all machines."""
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
    """Seed, in [0, 2**32), what data transforms draw from, and give the states back."""
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
    """(B, count), float64, uniform in [0, 1), of B seeds in [0, 2**128), row by row.

    Source: Philox (Salmon et al., 2011): streams of different keys are independent.
    """
    philox = (np.random.Philox(key=int(seed)) for seed in seeds)
    return np.stack([np.random.Generator(bits).random(count) for bits in philox])
