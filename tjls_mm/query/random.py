"""Random selection, the control of every comparison."""

from collections.abc import Iterable, Mapping

from tjls_mm.query.pool_outputs import check_selection
from tjls_mm.query.strategy import QueryStrategy
from tjls_mm.randomness import generator
from tjls_mm.registry import QUERIES


def select_random(image_ids: Iterable[str], budget: int, seed: int) -> list[str]:
    """Pick uniformly without replacement.

    Args:
        image_ids: The pool, in any order.
        budget: How many ids to return, 1 to the size of the pool.
        seed: Decides the picks.

    Returns:
        image_ids in drawn order; the order of the input does not matter.

    Raises:
        ValueError: If the budget does not fit.
    """
    ordered = sorted(image_ids)
    check_selection(dict.fromkeys(ordered), budget)
    rows = generator(seed, 'random').choice(len(ordered), budget, replace=False)
    return [ordered[row] for row in rows]


@QUERIES.register_module(name='random')
class RandomQuery(QueryStrategy):
    """Uniform without replacement; needs no scoring."""

    def select(self, pool: Mapping, budget: int, seed: int) -> list[str]:
        """See ``select_random``."""
        return select_random(pool, budget, seed)
