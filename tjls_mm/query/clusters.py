"""Typical images of clusters: TypiClust and TCM."""

import heapq
import warnings

import numpy as np
from threadpoolctl import threadpool_limits

from tjls_mm.errors import InputError
from tjls_mm.query.core_set import filled
from tjls_mm.query.features import (
    BLOCK,
    CandidateStrategy,
    needs_of,
    squared_distances,
    unit,
)
from tjls_mm.query.herding import read_weights, weight_source
from tjls_mm.registry import QUERIES

NEIGHBOURS = 20
SMALL = 5
"""Clusters of so few pool images come last: outliers."""


def cluster(
    x: np.ndarray, count: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """k-means: (N,) clusters of (N, D) rows and the centres, (count, D), N at most."""
    from sklearn.cluster import KMeans  # takes a second to import
    from sklearn.exceptions import ConvergenceWarning

    means = KMeans(
        min(count, len(x)), n_init=1, max_iter=20, random_state=int(rng.integers(2**31))
    )
    # One thread again: what was imported just now is not limited by the caller.
    with warnings.catch_warnings(), threadpool_limits(1):
        # Of copies there are fewer places than clusters: some stay empty.
        warnings.simplefilter('ignore', ConvergenceWarning)
        return means.fit_predict(x), means.cluster_centers_


def typicality(x: np.ndarray) -> np.ndarray:
    """(n,) of the (n, D) members of a cluster: 1 / mean distance to the nearest.

    Of min(20, n / 2) neighbours.

    Source: Hacohen et al., TypiClust, ICML 2022.
    """
    count = max(1, min(NEIGHBOURS, len(x) // 2))
    answer = np.empty(len(x))
    step = max(1, BLOCK * BLOCK // len(x))
    for start in range(0, len(x), step):
        squared = squared_distances(x[start : start + step], x)
        # The nearest of all is the image itself, or a copy, at 0.
        near = np.partition(squared, min(count, len(x) - 1), axis=1)[:, : count + 1]
        answer[start : start + step] = np.sqrt(near).sum(1) / count
    return 1 / (answer + 1e-5)


class _Cluster:
    """Members of one cluster, most typical first, and how near a pick is to each."""

    def __init__(self, rows: np.ndarray, x: np.ndarray, labelled: np.ndarray) -> None:
        typical = typicality(np.concatenate([x[rows], labelled]))[: len(rows)]
        order = np.argsort(-typical, kind='stable')
        self.rows, self.typical = rows[order], typical[order]
        self.x = x[self.rows]
        self.fresh = np.ones(len(rows), bool)
        for start in range(0, len(labelled), BLOCK):
            self._set_aside(labelled[start : start + BLOCK])

    def _set_aside(self, chosen: np.ndarray) -> None:
        step = max(1, BLOCK * BLOCK // len(chosen))
        for start in range(0, len(self.x), step):
            part = slice(start, start + step)
            self.fresh[part] &= squared_distances(self.x[part], chosen).min(1) > 0

    def pop(self) -> int | None:
        """The most typical row that is no copy of one labelled or picked."""
        if not self.fresh.any():
            return None
        place = self.fresh.argmax()
        self.fresh[place] = False
        self._set_aside(self.x[place : place + 1])
        return self.rows[place]


def typical_of_clusters(
    x: np.ndarray,
    labelled: np.ndarray,
    clusters: np.ndarray,
    labelled_clusters: np.ndarray,
    budget: int,
) -> tuple[np.ndarray, np.ndarray]:
    """The most typical image of the cluster with fewest labelled, then the largest.

    Args:
        x: (N, D), labelled: (M, D), and the cluster of each, (N,) and (M,).
        budget: 1 to N.

    Returns:
        Rows, first choice first, fewer than ``budget`` if what is left are copies of
        labelled or picked images, and (N,) typicality, NaN where it was not asked for.

    Source: Hacohen et al., TypiClust, ICML 2022. Clusters of 5 and fewer images come
    last (the authors leave them out), copies are left out (ours).
    """
    order = clusters.argsort(kind='stable')
    names, starts = np.unique(clusters[order], return_index=True)
    members = dict(zip(names.tolist(), np.split(order, starts[1:]), strict=True))
    heap = [
        (len(rows) <= SMALL, int((labelled_clusters == name).sum()), -len(rows), name)
        for name, rows in members.items()
    ]
    heapq.heapify(heap)
    opened, picks, typical = {}, [], np.full(len(x), np.nan)
    while heap and len(picks) < budget:
        small, chosen, size, name = heapq.heappop(heap)
        if name not in opened:
            inside = labelled[labelled_clusters == name]
            opened[name] = _Cluster(members[name], x, inside)
            typical[opened[name].rows] = opened[name].typical
        pick = opened[name].pop()
        if pick is not None:
            picks.append(pick)
            heapq.heappush(heap, (small, chosen + 1, size, name))
    return np.array(picks, np.int64), typical


@QUERIES.register_module()
class TypiClust(CandidateStrategy):
    """Typical images, one of each cluster that has no labelled image yet.

    Args:
        features: Name of an output, (N, D), e.g. of pretrained features.
        max_clusters: Clusters are as many as labelled and new images, and no more than
            this.

    Source: see ``typical_of_clusters``.
    """

    def __init__(self, features: str = 'feature', max_clusters: int = 500) -> None:
        if max_clusters < 1:
            raise InputError(f'max_clusters must be 1 or more, got {max_clusters}')
        self.features = features
        self.max_clusters = max_clusters
        self.needs = needs_of([features], [features], 0)

    def pick(self, pool, labelled, budget, rng):
        x, known = unit(pool[self.features]), unit(labelled[self.features])
        count = min(len(known) + budget, self.max_clusters)
        clusters, _ = cluster(np.concatenate([x, known]), count, rng)
        mine, theirs = np.split(clusters, [len(x)])
        picks, typical = typical_of_clusters(x, known, mine, theirs, budget)
        picks = filled(picks, x, known, budget)
        return picks, {'cluster': mine, 'typicality': typical}


@QUERIES.register_module()
class TCM(TypiClust):
    """TypiClust while few images are labelled, then the highest uncertainty.

    Args:
        features, max_clusters: Of TypiClust.
        switch: Labelled images from which on uncertainty decides.
        uncertainty: 'margin' of a classifier, else the name of an output, (N,), 0 and
            above, e.g. 'predictive_entropy' of a detector.
        passes: Stochastic passes, if ``uncertainty`` is made of them.

    Source: Doucet et al., Bridging Diversity and Uncertainty, 2024.
    """

    def __init__(
        self,
        switch: int,
        features: str = 'feature',
        uncertainty: str = 'margin',
        max_clusters: int = 500,
        passes: int = 10,
    ) -> None:
        super().__init__(features, max_clusters)
        self.switch = switch
        self.uncertainty = uncertainty
        source = weight_source(uncertainty)
        self.needs = needs_of([features, source], [features], passes)

    def pick(self, pool, labelled, budget, rng):
        score = read_weights(pool, self.uncertainty)
        if len(labelled[self.features]) < self.switch:
            picks, columns = super().pick(pool, labelled, budget, rng)
        else:
            picks, columns = np.argsort(-score, kind='stable')[:budget], {}
        return picks, {'uncertainty': score, **columns}
