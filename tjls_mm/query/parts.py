"""What parts of query strategies tell each other, and scores of images."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from mmengine.registry import Registry

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Boxes, Outputs
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.box_scores import (
    MAX_BOXES,
    MIN_SCORE,
    OF_SCORE,
    box_scores,
    by_class,
    check_kind,
    class_vector_scores,
    crowd,
    detections,
    expected_boxes,
    scored_detections,
    to_images,
)

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
        if not self.max_boxes >= 1:
            raise InputError(f'max_boxes must be at least 1, got {self.max_boxes}')

    def __call__(self, pool: Outputs, labelled: Outputs) -> Scores:
        boxes = pool['boxes']
        classes = boxes.probability.shape[1]
        count = detections if self._reads_vectors() else scored_detections
        boxes = count(boxes, self.min_score, self.max_boxes)
        values = self.values(boxes, labelled)
        by_label = None
        if self.over != 'max':
            by_label = self._by_class(boxes, values, classes)
        return Scores(
            to_images(boxes, values, self.over, self.gamma),
            by_label,
            by_class(boxes, np.asarray(boxes.score, np.float64), classes),
            expected_boxes(boxes),
        )

    def _reads_vectors(self) -> bool:
        # What ``values`` of a subclass reads is not known here.
        is_own = type(self).values is not BoxScore.values
        return self.soft or is_own or self.kind not in OF_SCORE

    def values(self, boxes: Boxes, labelled: Outputs) -> np.ndarray:
        """Score of each box, (M,) float64."""
        return box_scores(boxes, self.kind)

    def _by_class(self, boxes: Boxes, values: np.ndarray, classes: int) -> np.ndarray:
        if self.soft:
            parts = boxes.probability * values.astype(np.float32)[:, None]
            sums = boxes.reduce(parts, 'sum').astype(np.float64)
        else:
            sums = by_class(boxes, values, classes)
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

    def __call__(self, pool: Outputs, labelled: Outputs) -> Scores:
        p = np.asarray(pool['probability'], np.float64)
        plain = self.kind in OF_SCORE
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

    def __call__(self, pool: Outputs, labelled: Outputs) -> Scores:
        values = self.sign * np.asarray(pool[self.name], np.float64)
        check_numbers(values, pool)
        return Scores(np.searchsorted(np.sort(values), values, 'right') / len(values))


def joined_needs(parts: Iterable) -> Needs:
    """What all of some parts want."""
    needs = [part.needs for part in parts]
    return Needs(
        pool=tuple(dict.fromkeys(name for n in needs for name in n.pool)),
        labelled=tuple(dict.fromkeys(name for n in needs for name in n.labelled)),
        passes=max(n.passes for n in needs),
    )


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


def check_numbers(values: np.ndarray, pool: Outputs) -> None:
    """ValueError if a score (N,) of images is not finite."""
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        image_id, found = pool.image_ids[bad[0]], values[bad[0]]
        raise ValueError(f'the score of {image_id!r} is {found}, expected a number')


def not_negative(name: str, value, ndim: int = 0) -> np.ndarray:
    """Numbers of a setting as float64, of so many dimensions.

    Raises:
        InputError: If there is none, or one is not finite or below 0.
    """
    try:
        numbers = np.asarray(value, np.float64)
    except (TypeError, ValueError):
        numbers = np.full(1, np.nan)
    good = numbers.ndim == ndim and numbers.size and np.isfinite(numbers).all()
    if not (good and (numbers >= 0).all()):
        what = 'a number' if ndim == 0 else 'numbers'
        raise InputError(
            f'{name} must be {what}, finite and at least 0, got {value!r}: correct it.'
        )
    return numbers


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
