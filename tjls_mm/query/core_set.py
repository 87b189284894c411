"""Farthest-first coverage (k-center)."""

import numpy as np

from tjls_mm.query.centres import k_center
from tjls_mm.query.features import (
    CandidateStrategy,
    as_column,
    centred,
    distances_to,
    nearest,
    needs_of,
    on_picks,
    squared_norms,
)
from tjls_mm.registry import QUERIES


def farthest_first(
    x: np.ndarray, covered: np.ndarray, budget: int
) -> tuple[np.ndarray, np.ndarray]:
    """``k_center`` of rows x, (N, D), by squared distances; ``covered`` is (N,)."""
    x = np.asfortranarray(x)  # products with one row are twice as fast by columns
    norms = squared_norms(x)
    covered = covered.astype(np.float32)
    return k_center(lambda row: distances_to(x, norms, row), covered, budget)


def filled(
    picks: np.ndarray, x: np.ndarray, labelled: np.ndarray, budget: int
) -> np.ndarray:
    """(budget,) rows: picks, fewer or as many, then the farthest from all before."""
    if len(picks) == budget:
        return picks
    covered = np.minimum(nearest(x, labelled), nearest(x, x[picks]))
    covered[picks] = -1
    rest, _ = farthest_first(x, covered, budget - len(picks))
    return np.concatenate([picks, rest])


@QUERIES.register_module()
class CoreSet(CandidateStrategy):
    """Images farthest, in features, from every labelled and picked one.

    Args:
        features: Name of an output, (N, D), e.g. of pretrained features.

    Source: see ``k_center``. Without labelled images the first is random.
    """

    def __init__(self, features: str = 'feature') -> None:
        self.features = features
        self.needs = needs_of([features], [features], 0)

    def pick(self, pool, labelled, budget, rng):
        x, known, scale = centred(pool[self.features], labelled[self.features])
        covered = nearest(x, known)
        picks, reach = farthest_first(x, covered, budget)
        return picks, {
            'distance_to_labelled': as_column(covered, scale),
            'distance_when_picked': on_picks(as_column(reach, scale), picks, len(x)),
        }
