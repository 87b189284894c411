"""BADGE: a diverse draw of large gradients."""

import numpy as np

from tjls_mm.query.features import (
    ROUNDING,
    CandidateStrategy,
    needs_of,
    on_picks,
    squared_norms,
)
from tjls_mm.registry import QUERIES


def gradient_factor(probability: np.ndarray) -> np.ndarray:
    """(N, K) p - onehot of the likeliest class: gradient of the loss by the logits."""
    factor = probability.copy()
    factor[np.arange(len(factor)), factor.argmax(1)] -= 1
    return factor


def plus_plus(
    g: np.ndarray, f: np.ndarray, budget: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """k-means++ on the outer products of g and f, which are never formed.

    Args:
        g: (N, K) and f: (N, D): row i stands for the K * D numbers g[i] x f[i].
        budget: 1 to N.
        rng: One number per pick.

    Returns:
        (budget,) rows, and the probability of each when it was drawn: in proportion to
        the squared distance to the nearest pick. The first is the longest, with 1.
        Where every distance is 0, the first row that is left, with 1.

    Source: Ash et al., BADGE, ICLR 2020.
    """
    g, f = np.asfortranarray(g), np.asfortranarray(f)  # by columns: twice as fast
    norms = squared_norms(g).astype(np.float64) * squared_norms(f)
    left = np.full(len(g), np.inf)
    picks, chances = np.empty(budget, np.int64), np.ones(budget)
    free = np.ones(len(g), bool)
    for place in range(budget):
        total = left.sum()
        if place == 0:
            pick = norms.argmax()
        elif total > 0:
            sums = left.cumsum()
            pick = np.searchsorted(sums, rng.random() * sums[-1], side='right')
            pick = min(pick, np.flatnonzero(left)[-1])
            chances[place] = left[pick] / total
        else:
            pick = free.argmax()
        picks[place], free[pick] = pick, False
        sums = norms + norms[pick]
        distance = sums - 2.0 * (g @ g[pick]) * (f @ f[pick])
        distance[distance < ROUNDING * sums] = 0
        np.minimum(left, distance, out=left)
        left[pick] = 0
    return picks, chances


@QUERIES.register_module()
class BADGE(CandidateStrategy):
    """A draw that is diverse and prefers images whose label would move the learner.

    Of classifiers. Labelled images do not count.

    Args:
        features: Name of the output that the class layer sees, (N, D).
    """

    def __init__(self, features: str = 'feature') -> None:
        self.features = features
        self.needs = needs_of(['probability', features], [], 0)

    def pick(self, pool, labelled, budget, rng):
        g, f = gradient_factor(pool['probability']), pool[self.features]
        scale = np.abs(f).max() or 1  # squares stay finite, and no draw depends on it
        f = f / scale
        picks, chances = plus_plus(g, f, budget, rng)
        length = np.sqrt(squared_norms(g) * squared_norms(f)) * float(scale)
        return picks, {
            'gradient_norm': length,
            'draw_probability': on_picks(chances, picks, len(g)),
        }
