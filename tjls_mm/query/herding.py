"""Kernel coverage: MaxHerding and UHerding."""

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.query.features import (
    BLOCK,
    REFERENCES,
    CandidateStrategy,
    as_column,
    nearest,
    needs_of,
    on_picks,
    unit,
)
from tjls_mm.query.uncertainty import uncertainty
from tjls_mm.registry import QUERIES

NEAR_DUPLICATE = 0.05
"""Distance of unit vectors below which two images do not tell the width."""

_BATCH, _PATIENCE = 16, 4
"""Candidates whose gain is computed at once, and how often at most per pick."""


def kernel_width(x: np.ndarray, labelled: np.ndarray, budget: int) -> float:
    """10 % quantile of the nearest-neighbour distances of labelled images.

    Near-duplicates are left out: the published minimum falls to 0 with one pair. If
    fewer than two are labelled, those of ``budget`` random images, as a first batch.

    Args:
        x: (N, D), unit rows in random order; labelled: (M, D), unit rows.

    Source: Bae et al., UHerding, 2024 (minimum in place of the quantile).
    """
    few = labelled if len(labelled) > 1 else x[: max(2, budget)]
    few = few[:10_000]
    distances = np.sqrt(_nearest_other(few))
    apart = distances[(distances > NEAR_DUPLICATE) & np.isfinite(distances)]
    return float(np.quantile(apart, 0.1)) if len(apart) else 1.0


def _nearest_other(x: np.ndarray) -> np.ndarray:
    best = np.full(len(x), np.inf, np.float32)
    for start in range(0, len(x), BLOCK):
        similarity = x[start : start + BLOCK] @ x.T
        rows = np.arange(len(similarity))
        similarity[rows, rows + start] = -np.inf
        best[start : start + BLOCK] = 2 - 2 * similarity.max(1)
    return best.clip(min=0)


def herd(
    x: np.ndarray,
    reference: np.ndarray,
    weight: np.ndarray,
    coverage: np.ndarray,
    width: float,
    budget: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Again and again the image that covers most of what is not covered yet.

    The gain of i is the mean of weight * max(0, k(reference, i) - coverage), where
    k = exp(-distance^2 / width^2). Gains only fall, so that an old gain bounds a new
    one and few are computed per pick. That is exact until a wide kernel moves most of
    them: then the best of the 64 with the highest bounds is taken.

    Args:
        x: (N, D), unit rows.
        reference: (R, D), unit rows, to be covered; weight: (R,), 0 and above.
        coverage: (R,) of each by the labelled images, [0, 1].
        budget: 1 to N.

    Returns:
        (budget,) rows and their gains.

    Source: Bae et al., Generalized Coverage (MaxHerding), ECCV 2024; lazy evaluation:
    Minoux 1978.
    """
    coverage = coverage.astype(np.float32)
    weight = (weight / len(weight)).astype(np.float32)
    factor = np.float32(2 / width**2)

    def gains(rows):
        kernel = _kernel(reference, x[rows], factor)
        kernel -= coverage[:, None]
        np.maximum(kernel, 0, out=kernel)
        return weight @ kernel

    step = max(1, BLOCK * BLOCK // len(reference))
    starts = range(0, len(x), step)
    gain = np.concatenate([gains(slice(s, s + step)) for s in starts])
    picks, reached = np.empty(budget, np.int64), np.empty(budget)
    fresh = np.zeros(len(x), np.int64)
    for place in range(budget):
        for _ in range(_PATIENCE):
            pick = gain.argmax()
            if fresh[pick] == place:
                break
            stale = _highest(gain, _BATCH)
            stale = stale[(fresh[stale] < place) & (gain[stale] > -np.inf)]
            gain[stale] = gains(stale)
            fresh[stale] = place
        else:
            pick = np.where(fresh == place, gain, -np.inf).argmax()
        picks[place], reached[place] = pick, gain[pick]
        gain[pick], fresh[pick] = -np.inf, budget
        covers = _kernel(reference, x[pick : pick + 1], factor)[:, 0]
        np.maximum(coverage, covers, out=coverage)
    return picks, reached


def _kernel(x: np.ndarray, y: np.ndarray, factor: np.float32) -> np.ndarray:
    """(R, M) kernel of unit rows; ``factor`` is 2 / width^2."""
    kernel = x @ y.T
    kernel -= 1
    kernel *= factor
    return np.exp(kernel, out=kernel)


def _highest(values: np.ndarray, count: int) -> np.ndarray:
    """Rows of the highest values, in order of rows."""
    if count >= len(values):
        return np.arange(len(values))
    return np.sort(np.argpartition(-values, count - 1)[:count])


@QUERIES.register_module()
class MaxHerding(CandidateStrategy):
    """Images whose neighbourhoods cover the pool best, beside the labelled ones.

    Args:
        features: Name of an output, (N, D), e.g. of pretrained features.
        width: Of the kernel, in units of normalised features, above 0; None: see
            ``kernel_width``.
        weights: What it is worth to cover an image. None: 1. 'margin': of a classifier,
            1 less the difference of its two largest probabilities. 'density_ratio': by
            the discriminator's ``logit``, (1 - P) / P, held within 1/4 and 4: how much
            denser the pool is there than the labelled set. Else the name of an
            output, (N,), 0 and above.
        temperature: With 'margin', divides the logits of the classifier.
        passes: Stochastic passes, if ``weights`` is made of them.

    Raises:
        InputError: If a number is not above 0.
    """

    def __init__(
        self,
        features: str = 'feature',
        width: float | None = None,
        weights: str | None = None,
        temperature: float = 1.0,
        passes: int = 10,
    ) -> None:
        for name, value in (('width', width), ('temperature', temperature)):
            if value is not None and not value > 0:
                raise InputError(f'{name} must be above 0, got {value}')
        self.features = features
        self.width = width
        self.weights = weights
        self.temperature = temperature
        extra = [weight_source(weights)] if weights else []
        self.needs = needs_of([features, *extra], [features], passes)

    def pick(self, pool, labelled, budget, rng):
        x, known = unit(pool[self.features]), unit(labelled[self.features])
        weight = read_weights(pool, self.weights, self.temperature)
        width = self.width or kernel_width(x, known, budget)
        distance = nearest(x, known)
        coverage = np.exp(-distance[:REFERENCES] / width**2)
        # Candidates are in random order: the first are a random sample.
        picks, gains = herd(
            x, x[:REFERENCES], weight[:REFERENCES], coverage, width, budget
        )
        columns = {
            'distance_to_labelled': as_column(distance),
            'gain': on_picks(gains, picks, len(x)),
        }
        if self.weights:
            columns['weight'] = weight
        return picks, columns


def weight_source(weights: str) -> str:
    """Name of the output that weights are made of."""
    sources = {'margin': 'probability', 'density_ratio': 'logit'}
    return sources.get(weights, weights)


def read_weights(pool, weights: str | None, temperature: float = 1.0) -> np.ndarray:
    """(N,), 0 and above; see ``MaxHerding``.

    Raises:
        InputError: If the output is not of that form.
    """
    values = pool[weight_source(weights)] if weights else None
    if values is None:
        return np.ones(len(next(iter(pool.values()))), np.float32)
    if weights == 'density_ratio':
        bound = np.log(4)
        return np.exp(np.clip(-values, -bound, bound))
    if weights == 'margin':
        return uncertainty(tempered(values, temperature), 'margin').clip(min=0)
    if values.ndim != 1 or not values.min() >= 0:
        raise InputError(
            f'{weights!r} of shape {values.shape} and least value {values.min()} '
            'cannot weigh images: expected one number for each, 0 and above.'
        )
    return values


def tempered(probability: np.ndarray, temperature: float) -> np.ndarray:
    """(N, K) softmax of the logits divided by a temperature, rows sum to 1."""
    if temperature == 1:
        return probability
    with np.errstate(divide='ignore'):
        logits = np.log(np.asarray(probability, np.float64)) / temperature
    weight = np.exp(logits - logits.max(1, keepdims=True))
    return weight / weight.sum(1, keepdims=True)


@QUERIES.register_module()
class UHerding(MaxHerding):
    """Coverage of what the learner is unsure of.

    Args:
        uncertainty: ``weights`` of ``MaxHerding``: 'margin' of a classifier, of others
            the name of an output, (N,), e.g. 'predictive_entropy'.

    Source: Bae et al., Uncertainty Herding, 2024 (the temperature given, not fitted).
    """

    def __init__(
        self,
        features: str = 'feature',
        uncertainty: str = 'margin',
        width: float | None = None,
        temperature: float = 1.0,
        passes: int = 10,
    ) -> None:
        super().__init__(features, width, uncertainty, temperature, passes)
