"""Query strategies put together of parts, of which each does one thing."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil

import numpy as np
from mmengine.registry import Registry

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Boxes, Outputs
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.box_scores import (
    MAX_BOXES,
    MIN_SCORE,
    box_scores,
    by_class,
    check_kind,
    class_vector_scores,
    crowd,
    detections,
    expected_boxes,
    to_images,
)
from tjls_mm.query.strategy import QueryStrategy, Selection
from tjls_mm.randomness import generator
from tjls_mm.registry import QUERIES, build_own

QUERY_PARTS = Registry('part of a query strategy', scope='tjls_mm')
"""Scores, balances and diversities that a ``Composition`` can have."""


@dataclass(frozen=True)
class Scores:
    """What a score says of N images, of K classes: the higher, the sooner.

    Attributes:
        image: (N,), at least 0.
        by_class: (N, K), at least 0, what of it is of which class; None if unknown.
        expected: (N, K), objects (of a classifier: images) that a pick should add to
            each class; None if unknown.
        boxes: (N,), objects that an image should have; None if unknown.
    """

    image: np.ndarray
    by_class: np.ndarray | None = None
    expected: np.ndarray | None = None
    boxes: np.ndarray | None = None

    def times(self, image: np.ndarray, classes: np.ndarray | None = None) -> 'Scores':
        """Scores times numbers of images, (N,), and of their classes, (N, K)."""
        parts = self.by_class
        if parts is not None:
            parts = parts * (image[:, None] if classes is None else classes)
        return replace(self, image=self.image * image, by_class=parts)

    def rows(self, rows: np.ndarray) -> 'Scores':
        """Scores of some images, in this order."""
        fields = (self.image, self.by_class, self.expected, self.boxes)
        return Scores(*(None if field is None else field[rows] for field in fields))


@QUERY_PARTS.register_module()
@dataclass(frozen=True)
class BoxScore:
    """Score of a detector's image: of its boxes, summed up.

    Args:
        kind: Of a box, see ``box_scores``.
        over: 'sum' (over n^gamma of n boxes), 'mean' or 'max'.
        gamma: [0, 1].
        soft: A box's score goes to all classes by its probabilities, not to its label.
        min_score, max_boxes: Boxes that count, see ``detections``.
    """

    kind: str = 'score_entropy'
    over: str = 'sum'
    gamma: float = 0.0
    soft: bool = False
    min_score: float = MIN_SCORE
    max_boxes: int = MAX_BOXES

    needs = Needs(pool=('boxes',))

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if self.over not in ('sum', 'mean', 'max'):
            raise InputError(f"over must be 'sum', 'mean' or 'max', got {self.over!r}")
        if not 0 <= self.gamma <= 1:
            raise InputError(f'gamma must be in [0, 1], got {self.gamma}')

    def __call__(self, pool: Outputs) -> Scores:
        boxes = detections(pool['boxes'], self.min_score, self.max_boxes)
        values = self.values(boxes)
        return Scores(
            to_images(boxes, values, self.over, self.gamma),
            None if self.over == 'max' else self._by_class(boxes, values),
            by_class(boxes, np.asarray(boxes.score, np.float64)),
            expected_boxes(boxes),
        )

    def values(self, boxes: Boxes) -> np.ndarray:
        """Score of each box, (M,) float64."""
        return box_scores(boxes, self.kind)

    def _by_class(self, boxes: Boxes, values: np.ndarray) -> np.ndarray:
        if self.soft:
            parts = boxes.probability * values.astype(np.float32)[:, None]
            sums = boxes.reduce(parts, 'sum').astype(np.float64)
        else:
            sums = by_class(boxes, values)
        gamma = 1.0 if self.over == 'mean' else self.gamma
        return sums / crowd(boxes, gamma)[:, None]


@QUERY_PARTS.register_module()
@dataclass(frozen=True)
class ClassScore:
    """Score of a classifier's image, shared out to the classes by its probabilities.

    Args:
        kind: 'entropy', 'softmax_entropy', 'margin' or 'least_confidence', see
            ``box_scores``; 'score': 1, so that a class gets its probability.
    """

    kind: str = 'softmax_entropy'

    needs = Needs(pool=('probability',))

    def __post_init__(self) -> None:
        check_kind(self.kind)

    def __call__(self, pool: Outputs) -> Scores:
        p = np.asarray(pool['probability'], np.float64)
        plain = self.kind in ('score', 'score_entropy')
        image = np.ones(len(p)) if plain else class_vector_scores(p, self.kind)
        return Scores(image, p * image[:, None], p)


@QUERY_PARTS.register_module()
class OutputScore:
    """An output of one number per image, by its rank over N: only the order counts.

    Args:
        name: Of the output, e.g. 'logit' or 'mutual_information'.
        highest: Highest first; else lowest first.
        passes: Stochastic passes, of outputs that are made by such.
    """

    def __init__(self, name: str, highest: bool = True, passes: int = 0) -> None:
        self.name = name
        self.sign = 1 if highest else -1
        self.needs = Needs(pool=(name,), passes=passes)

    def __call__(self, pool: Outputs) -> Scores:
        values = self.sign * np.asarray(pool[self.name], np.float64)
        check_numbers(values, pool)
        return Scores(np.searchsorted(np.sort(values), values, 'right') / len(values))


class Balance:
    """Ranks images by their scores; this one as they are, a subclass by class.

    Attributes:
        needs: Outputs.
        noise_by_class: Noise is drawn for each class, not once for an image.
        draws: With noise, picks are draws of known probability.
    """

    needs = Needs()
    noise_by_class = False
    draws = True

    def value(self, scores: Scores, have: np.ndarray | None) -> np.ndarray:
        """Score of each image before anything is picked, (N,)."""
        return scores.image

    def rank(
        self,
        scores: Scores,
        have: np.ndarray | None,
        budget: int,
        rng: np.random.Generator,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Pick.

        Args:
            scores: With noise, of images in an order that decides between equals.
            have: Objects of each class that are or will be labelled, (K,), where the
                balance needs 'label_count'.
            budget: 1 to N.
            rng: For what is random beside the noise.

        Returns:
            Rows (budget,), first choice first, and the class that decided each, -1
            where none did.
        """
        rows = np.argsort(-scores.image, kind='stable')[:budget]
        return rows, np.full(budget, -1)


@dataclass(frozen=True)
class Shortlist:
    """What a diversity picks among.

    Attributes:
        pool, labelled: Outputs.
        rows: Of the pool, (n,), best first.
        taken: Rows of the pool that are picked already; none of ``rows``.
        classes: That put each on the list, (n,), -1 where none did.
        cost: Of each, (n,).
        seed: Of what is random.
    """

    pool: Outputs
    labelled: Outputs
    rows: np.ndarray
    taken: np.ndarray
    classes: np.ndarray
    cost: np.ndarray
    seed: int


def k_center(
    distance_to: Callable[[int], np.ndarray], nearest: np.ndarray, budget: int
) -> np.ndarray:
    """Greedy k-center: again and again the point farthest from all centres.

    Args:
        distance_to: Of a point, (n,), from all points to it.
        nearest: (n,), from each point to the nearest centre that there is already; inf
            where there is none.
        budget: 1 to n.

    Returns:
        (budget,), the first of equals first.

    Source: Sener and Savarese, 2018 (core-set).
    """
    nearest = nearest.copy()
    picks = []
    for _ in range(budget):
        picks.append(int(nearest.argmax()))
        np.minimum(nearest, distance_to(picks[-1]), out=nearest)
        nearest[picks[-1]] = -np.inf
    return np.array(picks)


@QUERY_PARTS.register_module()
@dataclass(frozen=True)
class KCenter:
    """Greedy k-center on features of images, from the labelled images on.

    Args:
        feature: Output (N, F), of the pool and of labelled images.
        within: 'class': among the images of each class, as many as are of its on the
            shortlist. None: among all.
    """

    feature: str = 'feature'
    within: str | None = None

    def __post_init__(self) -> None:
        if self.within not in (None, 'class'):
            raise InputError(f"within must be 'class' or None, got {self.within!r}")

    @property
    def needs(self) -> Needs:
        return Needs(pool=(self.feature,), labelled=(self.feature,))

    def __call__(self, images: Shortlist, budget: int) -> np.ndarray:
        x = np.asarray(images.pool[self.feature], np.float64)
        seeds = x[images.taken]
        if images.labelled.image_ids:
            seeds = np.append(seeds, images.labelled[self.feature], axis=0)
        x = x[images.rows]
        nearest = np.full(len(x), np.inf)
        for seed in seeds:
            np.minimum(nearest, ((x - seed) ** 2).sum(1), out=nearest)

        def pick(rows: np.ndarray, quota: int) -> np.ndarray:
            part = x[rows]
            far = k_center(
                lambda i: ((part - part[i]) ** 2).sum(1), nearest[rows], quota
            )
            return rows[far]

        if self.within is None:
            return pick(np.arange(len(x)), budget)
        groups = [np.flatnonzero(images.classes == c) for c in set(images.classes)]
        groups.sort(key=lambda rows: rows[0])
        quotas = share_out(np.array([len(rows) for rows in groups]), budget)
        picks = [pick(*part) for part in zip(groups, quotas, strict=True) if part[1]]
        return np.concatenate(picks)


def share_out(sizes: np.ndarray, budget: int) -> np.ndarray:
    """A budget shared out in proportion to sizes, by largest remainders; int."""
    exact = sizes * (budget / sizes.sum())
    quotas = np.floor(exact).astype(int)
    rest = np.argsort(quotas - exact, kind='stable')[: budget - quotas.sum()]
    quotas[rest] += 1
    return quotas


def check_numbers(values: np.ndarray, pool: Outputs) -> None:
    """ValueError if a score (N,) of images is not finite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        image_id, found = pool.image_ids[bad[0]], values[bad[0]]
        raise ValueError(f'the score of {image_id!r} is {found}, expected a number')


def labelled_counts(labelled: Outputs, classes: int) -> np.ndarray:
    """Labelled objects of each class, (K,) float64; InputError if K differs."""
    if not labelled.image_ids:
        return np.zeros(classes)
    counts = np.asarray(labelled['label_count'])
    if counts.shape[1] != classes:
        raise InputError(
            f'label_count is of {counts.shape[1]} classes, the outputs of the pool of '
            f'{classes}: give both the same classes.'
        )
    return counts.sum(0, dtype=np.float64)


def draw_control(n_images: int, share: float, budget: int, seed: int) -> np.ndarray:
    """Rows of the control: a share of the budget, uniformly, in drawn order."""
    size = round(share * budget)
    return generator(seed, 'control').choice(n_images, size, replace=False)


def power_probability(score: np.ndarray, beta: float) -> np.ndarray:
    """Of being drawn first, (N,): proportional to score^beta; 0 where all are 0."""
    powers = (score / max(score.max(), np.finfo(float).tiny)) ** beta
    return powers / max(powers.sum(), np.finfo(float).tiny)


@QUERIES.register_module()
class Composition(QueryStrategy):
    """Score, balance of classes, noise, diversity and a share of random images.

    Of the images that are not in the control share, those of highest score are picked,
    by the balance of classes where there is one; a diversity picks among ``shortlist``
    times as many. A score of 0 is never preferred; equals go by a seeded hash of the
    image_id.

    Args:
        score: Part: 'BoxScore', 'ClassScore', 'OutputScore', 'ExpectedBoxes',
            'FlipScore'.
        balance: Part: 'ClassBalance', 'Strata'. None: the score of an image as it is.
        noise: beta, at least 0.1: images are drawn without replacement, proportional
            to score^beta (Gumbel top-k). None: no noise.
        diversity: Part: 'KCenter', 'SameClassBoxes', 'Herding'.
        shortlist: Times the budget, what a diversity picks among; None: the pool.
        control: [0, 1], share of the budget that is drawn uniformly, first.
        cost: 'image', or 'boxes': scores are per base_cost + expected boxes.
        base_cost: Cost of an image without boxes, in boxes.

    Raises:
        InputError: If an argument is none of that, or parts do not fit together.

    The columns of its selection, those that it has: ``score`` (without noise),
    ``expected_boxes``, ``class`` (that decided a pick), ``control`` (drawn uniformly),
    ``draw_probability`` (in the draw that picked the image, or would have, if it were
    the first of its kind: p; after others were drawn p / (1 - the sum of theirs)).
    """

    def __init__(
        self,
        score: dict,
        balance: dict | None = None,
        noise: float | None = None,
        diversity: dict | None = None,
        shortlist: float | None = 4,
        control: float = 0.0,
        cost: str = 'image',
        base_cost: float = 1.0,
    ) -> None:
        if noise is not None and not noise >= 0.1:
            raise InputError(f'noise must be at least 0.1 or None, got {noise}')
        if shortlist is not None and not shortlist >= 1:
            raise InputError(f'shortlist must be at least 1 or None, got {shortlist}')
        if not 0 <= control <= 1:
            raise InputError(f'control must be in [0, 1], got {control}')
        if cost not in ('image', 'boxes'):
            raise InputError(f"cost must be 'image' or 'boxes', got {cost!r}")
        if not base_cost > 0:
            raise InputError(f'base_cost must be above 0, got {base_cost}')
        self.score = build_own(QUERY_PARTS, score)
        self.balance = build_own(QUERY_PARTS, balance) if balance else Balance()
        self.diversity = build_own(QUERY_PARTS, diversity) if diversity else None
        self.noise = noise
        self.shortlist = shortlist
        self.control = control
        self.cost = cost
        self.base_cost = base_cost
        parts = (self.score, self.balance, self.diversity)
        needs = [part.needs for part in parts if part]
        self.needs = Needs(
            pool=tuple(dict.fromkeys(name for n in needs for name in n.pool)),
            labelled=tuple(dict.fromkeys(name for n in needs for name in n.labelled)),
            passes=max(n.passes for n in needs),
        )

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        n_images = len(pool.image_ids)
        if not 1 <= budget <= n_images:
            raise ValueError(f'budget must be 1 to {n_images} (images), got {budget}')
        scores = self.score(pool)
        check_numbers(scores.image, pool)
        cost = self._cost(scores)
        scores = scores.times(1 / cost)
        drawn = draw_control(n_images, self.control, budget, seed)
        have = self._have(scores, labelled, drawn)
        # In the order of seeded hashes the first of equals is the one to take.
        rest = pool.smallest(np.zeros(n_images), n_images, seed)
        rest = rest[~np.isin(rest, drawn)]
        picks = classes = np.zeros(0, np.int64)
        if left := budget - len(drawn):
            places, classes = self._rank(scores, have, rest, left, seed)
            picks = rest[places]
            if self.diversity:
                images = Shortlist(
                    pool, labelled, picks, drawn, classes, cost[picks], seed
                )
                chosen = self.diversity(images, left)
                picks, classes = picks[chosen], classes[chosen]
        columns = self._columns(scores, have, drawn, rest, picks, classes)
        return Selection(np.append(drawn, picks), columns)

    def _cost(self, scores: Scores) -> np.ndarray:
        if self.cost == 'image':
            return np.ones(len(scores.image))
        if scores.boxes is None:
            raise InputError("cost='boxes' needs a score that is made of boxes.")
        return self.base_cost + scores.boxes

    def _have(
        self, scores: Scores, labelled: Outputs, drawn: np.ndarray
    ) -> np.ndarray | None:
        """Objects of each class, labelled and expected of the control share."""
        if type(self.balance) is Balance:
            return None
        if scores.by_class is None:
            raise InputError(
                f'{type(self.score).__name__} has no scores of classes to balance: '
                "write balance=None, or score=dict(type='BoxScore', over='sum')."
            )
        have = scores.expected[drawn].sum(0)
        if 'label_count' in self.balance.needs.labelled:
            have += labelled_counts(labelled, len(have))
        return have

    def _rank(
        self,
        scores: Scores,
        have: np.ndarray | None,
        rest: np.ndarray,
        budget: int,
        seed: int,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Places in ``rest`` of picks, or of what a diversity picks among; classes."""
        size = budget
        if self.diversity and self.shortlist is None:
            return np.arange(len(rest)), np.full(len(rest), -1)
        if self.diversity:
            size = min(ceil(self.shortlist * budget), len(rest))
        if self.noise:
            scores = self._noisy(scores, seed)
        rng = generator(seed, 'balance')
        return self.balance.rank(scores.rows(rest), have, size, rng)

    def _noisy(self, scores: Scores, seed: int) -> Scores:
        """Scores times e^(G / beta): the order of beta ln(score) + Gumbel noise G."""
        rng = generator(seed, 'noise')
        image = np.exp(rng.gumbel(size=len(scores.image)) / self.noise)
        if not self.balance.noise_by_class:
            return scores.times(image)
        classes = np.exp(rng.gumbel(size=scores.by_class.shape) / self.noise)
        return scores.times(image, classes)

    def _columns(
        self,
        scores: Scores,
        have: np.ndarray | None,
        drawn: np.ndarray,
        rest: np.ndarray,
        picks: np.ndarray,
        classes: np.ndarray,
    ) -> dict[str, np.ndarray]:
        n_images = len(scores.image)
        columns = {'score': self.balance.value(scores, have)}
        if scores.boxes is not None:
            columns['expected_boxes'] = scores.boxes
        if self.control:
            columns['control'] = np.isin(np.arange(n_images), drawn)
        if type(self.balance) is not Balance:
            columns['class'] = np.full(n_images, np.nan)
            columns['class'][picks] = np.where(classes < 0, np.nan, classes)
        if self.noise and self.balance.draws and not self.diversity:
            chances = np.full(n_images, 1 / n_images)
            chances[rest] = power_probability(scores.image[rest], self.noise)
            for kind in set(classes[classes >= 0]):
                of_kind = power_probability(scores.by_class[rest, kind], self.noise)
                chosen = np.isin(rest, picks[classes == kind])
                chances[rest[chosen]] = of_kind[chosen]
            columns['draw_probability'] = chances
        return columns
