"""Random selection, the control of every comparison."""

from collections.abc import Iterable

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Outputs
from tjls_mm.query.strategy import QueryStrategy
from tjls_mm.randomness import generator
from tjls_mm.registry import QUERIES


def select_random(image_ids: Iterable[str], budget: int, seed: int) -> list[str]:
    """Pick uniformly without replacement.

    Args:
        image_ids: In any order, which does not matter.
        budget: How many, 1 to as many as there are.
        seed: Decides the picks.

    Returns:
        ``budget`` ids in drawn order.

    Raises:
        ValueError: If the budget does not fit.
    """
    ordered = sorted(image_ids)
    return [ordered[row] for row in _draw(len(ordered), budget, seed)]


def _draw(count: int, budget: int, seed: int, draw: int = 0) -> np.ndarray:
    if not 1 <= budget <= count:
        raise ValueError(f'budget must be 1 to {count} (images), got {budget}')
    keys = ('random', draw) if draw else ('random',)
    return generator(seed, *keys).choice(count, budget, replace=False)


@QUERIES.register_module()
class Random(QueryStrategy):
    """Uniform without replacement; needs nothing of the pool.

    Args:
        draw: From 0; each number is an independent Random of the same trial. What two
            of them differ by is chance: the row 'Random, another draw' of a comparison.

    Raises:
        InputError: If ``draw`` is none of that.
    """

    def __init__(self, draw: int = 0) -> None:
        if type(draw) is not int or draw < 0:
            raise InputError(f'draw must be an integer of 0 or more, got {draw!r}')
        self.draw = draw

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> np.ndarray:
        return _draw(len(pool.image_ids), budget, seed, self.draw)
