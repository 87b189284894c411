"""Diversity of picks: images that differ, or that cover others, by their features."""

from abc import ABC, abstractmethod

import numpy as np
from threadpoolctl import threadpool_limits

from tjls_mm.errors import InputError
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.centres import k_center, plus_plus
from tjls_mm.query.parts import QUERY_PARTS, Shortlist
from tjls_mm.randomness import generator

CELLS = 1 << 24
"""Similarities that are in memory at once."""


def cover(
    best: np.ndarray,
    weight: np.ndarray,
    coverage: np.ndarray,
    cost: np.ndarray,
    budget: int,
) -> np.ndarray:
    """Pick greedily what covers most.

    The gain of image i is the sum over the R reference points of weight * max(0,
    best[i] - coverage), over its cost; coverage then grows to what the pick has. Gains
    only fall, so that an old one bounds the new one, and few are computed anew.

    Args:
        best: (N, R) float32, similarity of an image to each reference point.
        weight: (R,), at least 0.
        coverage: (R,), similarity that there is.
        cost: (N,), above 0.
        budget: 1 to N.

    Returns:
        (budget,), first choice first, the first of equals first.

    Source: MaxHerding (Bae et al., 2024); lazy greedy: Minoux, 1978.
    """
    coverage, weight = (np.asarray(x, np.float32) for x in (coverage, weight))

    def gain(rows: slice | np.ndarray) -> np.ndarray:
        new = best[rows] - coverage
        np.maximum(new, 0, out=new)
        new *= weight
        return new.sum(1) / cost[rows]

    step = max(1, CELLS // max(1, best.shape[1]))
    bound = [gain(slice(s, s + step)) for s in range(0, len(best), step)]
    bound = np.concatenate(bound)
    fresh = np.zeros(len(best), np.int64)
    picks = []
    for place in range(budget):
        while fresh[row := bound.argmax()] < place:
            bound[row : row + 1] = gain(slice(row, row + 1))
            fresh[row] = place
        picks.append(int(row))
        coverage = np.maximum(coverage, best[row])
        bound[row] = -np.inf
        fresh[row] = budget
    return np.array(picks)


def nearest_squares(x: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Squared distance of rows (n, F) to the nearest of others, (n,); inf if none."""
    nearest = np.full(len(x), np.inf)
    norms = (x**2).sum(1)
    for start in range(0, len(known), 256):
        part = known[start : start + 256]
        squares = norms[:, None] + (part**2).sum(1) - 2 * (x @ part.T)
        np.minimum(nearest, squares.min(1).clip(0), out=nearest)
    return nearest


def share_out(sizes: np.ndarray, budget: int) -> np.ndarray:
    """A budget shared out in proportion to sizes, by largest remainders; int."""
    exact = sizes * (budget / sizes.sum())
    quotas = np.floor(exact).astype(int)
    rest = np.argsort(quotas - exact, kind='stable')[: budget - quotas.sum()]
    quotas[rest] += 1
    return quotas


class ByFeature(ABC):
    """Diversity by features of images, from the labelled images on.

    Args:
        features: Output (N, F), of the pool and of labelled images.
        within: None: among all of the list. 'class', 'cluster': among the images that a
            class put there, or of a k-means cluster of the list, each in proportion to
            its size.
        clusters: How many.
    """

    def __init__(
        self, features: str = 'feature', within: str | None = None, clusters: int = 20
    ) -> None:
        if within not in (None, 'class', 'cluster'):
            raise InputError(
                f"within must be 'class', 'cluster' or None, got {within!r}"
            )
        if not clusters >= 1:
            raise InputError(f'clusters must be at least 1, got {clusters}')
        self.features = features
        self.within = within
        self.clusters = clusters
        self.needs = Needs(pool=(features,), labelled=(features,))

    def __call__(self, images: Shortlist, budget: int) -> np.ndarray:
        known = np.asarray(images.pool[self.features][images.taken], np.float64)
        if images.labelled.image_ids:
            known = np.append(known, images.labelled[self.features], axis=0)
        x = np.asarray(images.pool[self.features][images.rows], np.float64)
        rng = generator(images.seed, 'diversity')
        groups = self._groups(images, x, rng)
        quotas = share_out(np.array([len(rows) for rows in groups]), budget)
        picks = [
            rows[self.pick(x[rows], known, quota, rng)]
            for rows, quota in zip(groups, quotas, strict=True)
            if quota
        ]
        return np.concatenate(picks)

    def _groups(
        self, images: Shortlist, x: np.ndarray, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Rows of each group, that of the best image first."""
        group = np.zeros(len(x), int)
        if self.within == 'class':
            group = images.classes
        elif self.within == 'cluster':
            from sklearn.cluster import KMeans  # takes a second to import

            n_clusters = min(self.clusters, len(np.unique(x, axis=0)))
            means = KMeans(n_clusters, n_init=1, random_state=int(rng.integers(2**31)))
            # Its library is loaded just now: no limit from outside holds for it.
            with threadpool_limits(1):
                group = means.fit_predict(x)
        groups = [np.flatnonzero(group == number) for number in np.unique(group)]
        return sorted(groups, key=lambda rows: rows[0])

    @abstractmethod
    def pick(
        self, x: np.ndarray, known: np.ndarray, budget: int, rng: np.random.Generator
    ) -> np.ndarray:
        """Rows (budget,) of x (n, F), beside those that are known, (m, F)."""


@QUERY_PARTS.register_module()
class KCenter(ByFeature):
    """Greedy k-center on features of images; arguments of ``ByFeature``."""

    def pick(self, x, known, budget, rng):
        nearest = nearest_squares(x, known)
        return k_center(lambda i: ((x - x[i]) ** 2).sum(1), nearest, budget)[0]


@QUERY_PARTS.register_module()
class KMeansPlusPlus(ByFeature):
    """Draws by squared distance to all centres; arguments of ``ByFeature``."""

    def pick(self, x, known, budget, rng):
        nearest = nearest_squares(x, known)
        return plus_plus(lambda i: ((x - x[i]) ** 2).sum(1), nearest, budget, rng)[0]


@QUERY_PARTS.register_module()
class Herding(ByFeature):
    """Coverage of the list by cosine (of 2,000 of it); arguments of ``ByFeature``."""

    def pick(self, x, known, budget, rng):
        x, known = (unit(part).astype(np.float32) for part in (x, known))
        reference = x[rng.permutation(len(x))[:2_000]]
        # Copies have the same, and what is equally near is so wherever it stands.
        best = (x @ reference.T).clip(0).round(5)
        coverage = (known @ reference.T).max(0, initial=0)
        ones = np.ones(len(x))
        return cover(best, np.ones(len(reference)), coverage, ones, budget)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows (n, F) of length 1; 0 where they are 0."""
    length = np.sqrt((x**2).sum(1, keepdims=True))
    return x / np.maximum(length, np.finfo(np.float32).tiny)
