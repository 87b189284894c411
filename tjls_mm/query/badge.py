"""BADGE: a diverse draw of large gradients."""

import numpy as np

from tjls_mm.query.centres import plus_plus
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


def draw_gradients(
    g: np.ndarray, f: np.ndarray, budget: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """``plus_plus`` on the outer products of g and f, which are never formed.

    Args:
        g: (N, K) and f: (N, D): row i stands for the K * D numbers g[i] x f[i].
        budget: 1 to N.
        rng: One number per pick.

    Returns:
        (budget,) rows, the longest first, and the probability of each when it was
        drawn.

    Source: Ash et al., BADGE, ICLR 2020.
    """
    g, f = np.asfortranarray(g), np.asfortranarray(f)  # by columns: twice as fast
    norms = squared_norms(g).astype(np.float64) * squared_norms(f)

    def distance_to(row: int) -> np.ndarray:
        sums = norms + norms[row]
        distance = sums - 2.0 * (g @ g[row]) * (f @ f[row])
        distance[distance < ROUNDING * sums] = 0
        return distance

    none = np.full(len(g), np.inf)
    return plus_plus(distance_to, none, budget, rng, first=norms.argmax())


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
        picks, chances = draw_gradients(g, f, budget, rng)
        length = np.sqrt(squared_norms(g) * squared_norms(f)) * float(scale)
        return picks, {
            'gradient_norm': length,
            'draw_probability': on_picks(chances, picks, len(g)),
        }
