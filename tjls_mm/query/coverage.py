"""Coverage by balls: ProbCover and DCoM."""

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.query.clusters import cluster
from tjls_mm.query.core_set import filled
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

SMALLEST, LARGEST = 1e-3, 1.1
"""Radii, in units of normalised features; the largest is DCoM's."""

_COPY = 1 - 1e-5
"""Cosine above which two images are copies."""


def pure_radius(x: np.ndarray, classes: np.ndarray, purity: float = 0.95) -> float:
    """Largest radius at which the balls of that share of images hold one class only.

    Args:
        x: (N, D), unit rows in random order: the first 2,000 are asked.
        classes: (N,) ints, e.g. of k-means.

    Source: Yehuda et al., Active Learning Through a Covering Lens, NeurIPS 2022 (there
    by search; the ball of an image is pure up to the nearest image of another class).
    """
    asked = min(2000, len(x))
    others = np.full(asked, -1.0)
    for start in range(0, len(x), BLOCK):
        similarity = x[:asked] @ x[start : start + BLOCK].T
        same = classes[:asked, None] == classes[start : start + BLOCK]
        similarity[same] = -1
        np.maximum(others, similarity.max(1), out=others)
    reach = np.sqrt(2 - 2 * others.clip(-1, 1))
    return float(np.quantile(reach, 1 - purity).clip(SMALLEST, LARGEST))


def pure_radii(
    labelled: np.ndarray,
    labelled_classes: np.ndarray,
    x: np.ndarray,
    classes: np.ndarray,
    purity: float = 0.95,
) -> np.ndarray:
    """(M,) largest radius at which that share of the pool around each is of its class.

    Args:
        labelled: (M, D) and x: (N, D), unit rows; and the class of each, (M,) and (N,).

    Source: Mishal & Weinshall, DCoM, 2024 (there by bisection).
    """
    radii = np.full(len(labelled), SMALLEST)
    counts = np.arange(1, len(x) + 1)
    step = max(1, BLOCK * 1000 // len(x))
    for start in range(0, len(labelled), step):
        block = slice(start, start + step)
        similarity = labelled[block] @ x.T
        order = np.argsort(-similarity, axis=1, kind='stable')
        same = classes[order] == labelled_classes[block, None]
        pure = same.cumsum(1) / counts >= purity
        last = pure.shape[1] - 1 - pure[:, ::-1].argmax(1)
        edge = order[np.arange(len(order)), last]
        reach = np.sqrt(2 - 2 * similarity[np.arange(len(order)), edge].clip(-1, 1))
        radii[block] = np.where(pure.any(1), reach, SMALLEST)
    return radii.clip(SMALLEST, LARGEST)


def within(x: np.ndarray, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """(N,) whether an image is in one of the balls."""
    covered, least = np.zeros(len(x), bool), _cosine(radii)
    for start in range(0, len(x), BLOCK):
        part = slice(start, start + BLOCK)
        for other in range(0, len(centres), BLOCK):
            similarity = x[part] @ centres[other : other + BLOCK].T
            covered[part] |= (similarity >= least[other : other + BLOCK]).any(1)
    return covered


def _cosine(radius):
    """Of two unit vectors at that distance."""
    return np.float32(1 - np.square(radius) / 2)


def cover(
    x: np.ndarray,
    reference: np.ndarray,
    covered: np.ndarray,
    radius: float,
    budget: int,
    doubt: np.ndarray | None = None,
    competence: float = 0.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Again and again the image whose ball holds most images that are not covered.

    Args:
        x: (N, D) and reference: (R, D), unit rows.
        covered: (R,) bool, by labelled images.
        radius: Of the ball of a pick.
        budget: 1 to N.
        doubt: (N,), [0, 1], which decides with the weight ``competence``, against the
            share of the ball that is not covered, of the largest such.

    Returns:
        Rows and what each newly covers; fewer than ``budget`` if all is covered, or if
        only copies of picks are left.

    Source: ProbCover and DCoM, see ``pure_radius`` and ``pure_radii``.
    """
    x, least = np.asfortranarray(x), _cosine(radius)
    covered = covered.copy()
    degree = np.zeros(len(x), np.int64)
    _count(x, reference[~covered], least, degree, 1)
    free, picks, gains = np.ones(len(x), bool), [], []
    while len(picks) < budget and free.any():
        largest = degree[free].max()
        if largest <= 0 and not competence:
            break
        score = degree / max(1, largest)
        if competence:
            score = competence * doubt + (1 - competence) * score
        pick = np.where(free, score, -np.inf).argmax()
        picks.append(pick)
        gains.append(degree[pick])
        new = ~covered & (reference @ x[pick] >= least)
        covered |= new
        _count(x, reference[new], least, degree, -1)
        free[pick] = False
        if competence:  # else nothing speaks for a copy: what it covers is covered
            free &= x @ x[pick] < _COPY
    return np.array(picks, np.int64), np.array(gains, np.int64)


def _count(x, reference, least, degree, sign) -> None:
    """Add (or take away) to ``degree`` the references in the ball of each row of x."""
    for other in range(0, len(reference), BLOCK):
        part = np.ascontiguousarray(reference[other : other + BLOCK].T)
        for start in range(0, len(x), BLOCK):
            block = slice(start, start + BLOCK)
            degree[block] += sign * np.count_nonzero(x[block] @ part >= least, axis=1)


@QUERIES.register_module()
class ProbCover(CandidateStrategy):
    """Images whose balls, in features, cover most of the pool: for few labels.

    Args:
        features: Name of an output, (N, D), e.g. of pretrained features.
        radius: In units of normalised features, (0, 2]; None: see ``pure_radius``, by
            k-means.
        clusters: Of k-means; the number of classes is a good one.

    What no ball adds to is picked farthest first.
    """

    def __init__(
        self, features: str = 'feature', radius: float | None = None, clusters: int = 20
    ) -> None:
        if radius is not None and not 0 < radius <= 2:
            raise InputError(f'radius must be in (0, 2], got {radius}')
        self.features = features
        self.radius = radius
        self.clusters = clusters
        self.needs = needs_of([features], [features], 0)

    def pick(self, pool, labelled, budget, rng):
        x, known = unit(pool[self.features]), unit(labelled[self.features])
        radius = self.radius
        if radius is None:
            radius = pure_radius(x, cluster(x, self.clusters, rng)[0])
        # Candidates are in random order: the first are a random sample.
        distance, reference = nearest(x, known), x[:REFERENCES]
        covered = distance[:REFERENCES] <= radius**2
        picks, gains = cover(x, reference, covered, radius, budget)
        return filled(picks, x, known, budget), {
            'distance_to_labelled': as_column(distance),
            'newly_covered': on_picks(gains, picks, len(x)),
        }


@QUERIES.register_module()
class DCoM(CandidateStrategy):
    """ProbCover while little is covered, and margin the more the more is.

    Of classifiers. The ball of a labelled image is as large as the learner's classes
    are pure around it, that of a candidate their mean.

    Args:
        features: Name of an output, (N, D), e.g. of pretrained features.
        steepness, middle: k and a of the share of margin,
            (1 + exp(-k (1 - a))) / (1 + exp(-k (coverage - a))).

    Source: Mishal & Weinshall, DCoM: Active Learning for All Learners, 2024. The class
    of a labelled image is what the learner says of it.
    """

    def __init__(
        self, features: str = 'feature', steepness: float = 50.0, middle: float = 0.8
    ) -> None:
        self.features = features
        self.steepness = steepness
        self.middle = middle
        names = ['probability', features]
        self.needs = needs_of(names, names, 0)

    def pick(self, pool, labelled, budget, rng):
        x, known = unit(pool[self.features]), unit(labelled[self.features])
        reference, probability = x[:REFERENCES], pool['probability']
        classes = probability.argmax(1)
        if len(known):
            theirs = labelled['probability'].argmax(1)
            radii = pure_radii(known, theirs, reference, classes[:REFERENCES])
        else:
            groups = cluster(x, probability.shape[1], rng)[0]
            radii = np.array([pure_radius(x, groups)])
        covered = within(reference, known, radii)
        competence = self.competence(covered.mean())
        doubt = uncertainty(probability, 'margin')
        picks, gains = cover(
            x, reference, covered, radii.mean(), budget, doubt, competence
        )
        return filled(picks, x, known, budget), {
            'uncertainty': doubt,
            'newly_covered': on_picks(gains, picks, len(x)),
        }

    def competence(self, coverage: float) -> float:
        """Share of margin in the choice, by the share of the pool that is covered."""
        k, a = self.steepness, self.middle
        return (1 + np.exp(-k * (1 - a))) / (1 + np.exp(-k * (coverage - a)))
