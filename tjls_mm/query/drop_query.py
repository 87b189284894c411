"""DropQuery: images whose class changes with dropout, one of each cluster."""

import numpy as np

from tjls_mm.query.clusters import cluster
from tjls_mm.query.core_set import filled
from tjls_mm.query.features import (
    BLOCK,
    CandidateStrategy,
    centred,
    needs_of,
    squared_distances,
)
from tjls_mm.registry import QUERIES


def flip_share(probability: np.ndarray, passes: np.ndarray) -> np.ndarray:
    """(N,) share of the passes whose class differs from that without dropout.

    Args:
        probability: (N, K).
        passes: (N, T, K).
    """
    return (passes.argmax(2) != probability.argmax(1)[:, None]).mean(1)


def nearest_to_centres(
    x: np.ndarray, clusters: np.ndarray, centres: np.ndarray
) -> np.ndarray:
    """Rows nearest to the centre of their cluster, of the largest cluster first."""
    away = np.square(x - centres[clusters]).sum(1)
    order = np.lexsort((np.arange(len(x)), away, clusters))
    _, starts, sizes = np.unique(clusters[order], return_index=True, return_counts=True)
    return order[starts[np.argsort(-sizes, kind='stable')]]


def first_of_copies(x: np.ndarray) -> np.ndarray:
    """(n,) whether a row is no copy of one before it."""
    first = np.ones(len(x), bool)
    for start in range(0, len(x), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(x)))
        for other in range(0, start + BLOCK, BLOCK):
            earlier = np.arange(other, min(other + BLOCK, len(x)))
            equal = squared_distances(x[rows], x[earlier]) == 0
            first[rows] &= ~(equal & (earlier < rows[:, None])).any(1)
    return first


@QUERIES.register_module()
class DropQuery(CandidateStrategy):
    """Images of which more than half the passes flip the class, one of each cluster.

    Of classifiers. Where they do not suffice, the rest is picked farthest first.

    Args:
        features: Name of an output, (N, D), e.g. of pretrained features.
        passes: Stochastic passes with dropout on the features.

    Source: Gupte et al., Revisiting Active Learning in the Era of Vision Foundation
    Models, TMLR 2024 (three passes with dropout 0.75 there; the learner's own here).
    """

    def __init__(self, features: str = 'feature', passes: int = 3) -> None:
        self.features = features
        names = ['probability', 'pass_probability', features]
        self.needs = needs_of(names, [features], passes)

    def pick(self, pool, labelled, budget, rng):
        share = flip_share(pool['probability'], pool['pass_probability'])
        x, known, _ = centred(pool[self.features], labelled[self.features])
        rows, groups = np.flatnonzero(share > 0.5), np.full(len(x), np.nan)
        picks = rows
        if len(rows):
            groups[rows], centres = cluster(x[rows], budget, rng)
            chosen = nearest_to_centres(x[rows], groups[rows].astype(int), centres)
            picks = rows[chosen]
            picks = picks[first_of_copies(x[picks])]
        picks = filled(picks, x, known, budget)
        return picks, {'flip_share': share, 'cluster': groups}
