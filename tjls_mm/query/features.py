"""Features of pool and labelled images, and distances in blocks, never N x N.

``N`` candidates, ``M`` labelled images, ``D`` features. Candidates stand in the order
of their seeded hashes, so that ``argmax`` breaks ties by hash.
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from threadpoolctl import threadpool_limits

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Outputs
from tjls_mm.outputs.vocabulary import PASS_NAMES, Needs
from tjls_mm.query.strategy import QueryStrategy, Selection
from tjls_mm.randomness import generator, tie_break

BLOCK = 4096
"""Rows and columns of a distance matrix that are in memory at once."""

LEAST_CANDIDATES, CANDIDATES_PER_PICK = 20_000, 20
REFERENCES = 20_000
"""Images at most, drawn of the candidates, by which coverage is measured."""

ROUNDING = 4e-6
"""Squared distances below this share of the squared norms are taken for 0."""


def candidate_rows(image_ids: Sequence[str], budget: int, seed: int) -> np.ndarray:
    """A random sub-pool of max(20 budget, 20,000) images at most, in order of hash.

    Raises:
        ValueError: If the budget is not 1 to N.
    """
    n_images = len(image_ids)
    if not 1 <= budget <= n_images:
        raise ValueError(f'budget must be 1 to {n_images} (images), got {budget}')
    hashes = np.fromiter((tie_break(i, seed) for i in image_ids), np.int64, n_images)
    most = max(CANDIDATES_PER_PICK * budget, LEAST_CANDIDATES)
    return hashes.argsort(kind='stable')[:most]


def read_output(outputs: Outputs, name: str, rows: np.ndarray | None = None):
    """An output of some rows in float32; without images (0, 0).

    Raises:
        InputError: If a value is not finite.
    """
    if not outputs.image_ids:
        return np.zeros((0, 0), np.float32)
    rows = np.arange(len(outputs.image_ids)) if rows is None else rows
    with np.errstate(over='ignore'):
        values = np.asarray(outputs[name][rows], np.float32)
    finite = np.isfinite(values).reshape(len(rows), -1).all(1)
    if not finite.all():
        image_id = outputs.image_ids[rows[finite.argmin()]]
        raise InputError(
            f'{name!r} of {image_id!r} is not finite, expected numbers of float32: '
            'nothing was selected. Name an output without such values in the query.'
        )
    return values


class CandidateStrategy(QueryStrategy):
    """Rules over a sub-pool of candidates, on one thread: the same picks anywhere."""

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        rows = candidate_rows(pool.image_ids, budget, seed)
        outputs = {name: read_output(pool, name, rows) for name in self.needs.pool}
        known = {name: read_output(labelled, name) for name in self.needs.labelled}
        for name in known:
            known[name] = _like(known[name], outputs[name], name)
        with threadpool_limits(1):
            rng = generator(seed, type(self).__name__)
            picks, columns = self.pick(outputs, known, budget, rng)
        n_images = len(pool.image_ids)
        return Selection(
            rows[picks],
            {name: _spread(c, rows, n_images) for name, c in columns.items()},
        )

    @abstractmethod
    def pick(
        self,
        pool: Mapping[str, np.ndarray],
        labelled: Mapping[str, np.ndarray],
        budget: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Choose among candidates.

        Args:
            pool: Outputs of ``needs.pool`` of the N candidates, in order of hash.
            labelled: Those of ``needs.labelled`` of the M labelled images, M may be 0.
            budget: 1 to N.
            rng: For what is random.

        Returns:
            (budget,) places among the candidates, first choice first, and columns of
            N numbers.
        """


def _like(labelled: np.ndarray, pool: np.ndarray, name: str) -> np.ndarray:
    if not len(labelled):
        return np.zeros((0, *pool.shape[1:]), np.float32)
    if labelled.shape[1:] != pool.shape[1:]:
        raise InputError(
            f'{name!r} has the shape {labelled.shape[1:]} of a labelled image and '
            f'{pool.shape[1:]} of a pool image, expected equal ones of one learner.'
        )
    return labelled


def _spread(values: np.ndarray, rows: np.ndarray, n_images: int) -> np.ndarray:
    column = np.full(n_images, np.nan, np.float64)
    column[rows] = values
    return column


def on_picks(values: Sequence[float], picks: np.ndarray, count: int) -> np.ndarray:
    """A column with a number for each pick and NaN for the others."""
    return _spread(np.asarray(values), picks, count)


def needs_of(pool: Sequence[str], labelled: Sequence[str], passes: int) -> Needs:
    """``Needs`` with ``passes`` where a name is made by stochastic passes, else 0."""
    stochastic = set(PASS_NAMES) & {*pool, *labelled}
    names = tuple(dict.fromkeys(pool))
    return Needs(names, tuple(labelled), passes if stochastic else 0)


def centred(x: np.ndarray, labelled: np.ndarray):
    """Both less the mean of x, and divided by a scale that keeps squares finite.

    Returns:
        (N, D), (M, D) and the scale.
    """
    mean = x.mean(0, dtype=np.float64)
    scale = max(np.abs(part).max(initial=0) for part in (x, labelled)) or 1.0
    # Divided first: a difference of float32's largest numbers would not be finite.
    mean = (mean / scale).astype(np.float32)
    return x / scale - mean, labelled / scale - mean, float(scale)


def unit(x: np.ndarray) -> np.ndarray:
    """Rows of length 1; a row of zeros becomes a direction as good as any."""
    largest = np.abs(x).max(1, initial=0, keepdims=True)
    x = np.where(largest > 0, x / np.where(largest > 0, largest, 1), 1)
    return (x / np.sqrt(squared_norms(x))[:, None]).astype(np.float32)


def squared_norms(x: np.ndarray) -> np.ndarray:
    return np.einsum('nd,nd->n', x, x)


def squared_distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N, M) of (N, D) and (M, D), both small."""
    norms = squared_norms(x)[:, None] + squared_norms(y)
    return _without_rounding(norms - 2 * (x @ y.T), norms)


def distances_to(x: np.ndarray, norms: np.ndarray, row: int) -> np.ndarray:
    """(N,) squared distances of all rows to one of them."""
    sums = norms + norms[row]
    return _without_rounding(sums - 2 * (x @ x[row]), sums)


def _without_rounding(squared: np.ndarray, norms: np.ndarray) -> np.ndarray:
    squared[squared < ROUNDING * norms] = 0
    return squared


def nearest(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(N,) squared distance to the nearest row of y, inf without any."""
    best = np.full(len(x), np.inf, np.float32)
    for start in range(0, len(x), BLOCK):
        part = slice(start, start + BLOCK)
        for other in range(0, len(y), BLOCK):
            block = squared_distances(x[part], y[other : other + BLOCK])
            np.minimum(best[part], block.min(1), out=best[part])
    return best


def as_column(squared: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """Distances for ``selection.csv``, NaN where there is nothing to be near to."""
    return np.where(np.isfinite(squared), np.sqrt(squared) * scale, np.nan)
