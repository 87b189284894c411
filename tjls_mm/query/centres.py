"""Centres one by one: the farthest from all before, or drawn by that distance."""

from collections.abc import Callable

import numpy as np


def k_center(
    distance_to: Callable[[int], np.ndarray], nearest: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """Greedy k-center: again and again the point farthest from all centres.

    Args:
        distance_to: Of a point, (N,), from all points to it.
        nearest: (N,), from each point to the nearest centre that there is already; inf
            where there is none, below 0 for what must not be picked before the rest.
        budget: 1 to N.

    Returns:
        (budget,) rows, the first of equals first, and their distances when they were
        picked.

    Source: Gonzalez 1985; Sener and Savarese, core-set, ICLR 2018 (greedy, without the
    mixed-integer program).
    """
    nearest = nearest.copy()
    picks, reach = np.empty(budget, np.int64), np.empty(budget, nearest.dtype)
    for place in range(budget):
        pick = picks[place] = nearest.argmax()
        reach[place] = nearest[pick]
        np.minimum(nearest, distance_to(pick), out=nearest)
        nearest[pick] = -np.inf
    return picks, reach


def plus_plus(
    distance_to: Callable[[int], np.ndarray],
    nearest: np.ndarray,
    budget: int,
    rng: np.random.Generator,
    first: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """As ``k_center``, but a point is drawn in proportion to its distance.

    Args:
        distance_to, nearest, budget: See ``k_center``; squared distances.
        rng: One number per draw.
        first: Picked first where there is no centre.

    Returns:
        (budget,) rows, and the probability of each when it was drawn; 1 of the first,
        and of the first that is left where every distance is 0.

    Source: Arthur and Vassilvitskii, k-means++, 2007.
    """
    nearest = nearest.astype(np.float64)
    picks, chances = np.empty(budget, np.int64), np.ones(budget)
    free = np.ones(len(nearest), bool)
    for place in range(budget):
        sums = nearest.cumsum()
        if sums[-1] == np.inf:
            pick = first
        elif sums[-1] > 0:
            pick = np.searchsorted(sums, rng.random() * sums[-1], side='right')
            pick = min(pick, np.flatnonzero(nearest)[-1])
            chances[place] = nearest[pick] / nearest.sum()
        else:
            pick = free.argmax()
        picks[place], free[pick] = pick, False
        np.minimum(nearest, distance_to(pick), out=nearest)
        nearest[pick] = 0
    return picks, chances
