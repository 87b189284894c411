"""What boxes say of images: uncertainty of a box, and what it makes of an image.

``N`` images, ``M`` boxes of all of them, ``K`` classes without background.
"""

from dataclasses import replace

import numpy as np
from scipy.special import entr

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Boxes, ImageBoxes, Outputs

KINDS = (
    'entropy',
    'softmax_entropy',
    'score_entropy',
    'margin',
    'least_confidence',
    'score',
)

OF_SCORE = ('score', 'score_entropy')
"""Kinds that read no class vectors."""

MIN_SCORE = 0.05
MAX_BOXES = 100


def detections(
    boxes: Boxes, min_score: float = MIN_SCORE, max_boxes: int = MAX_BOXES
) -> Boxes:
    """The boxes that count: one per prior, of those the best of an image.

    Args:
        boxes: Of a detector, after suppression.
        min_score: Boxes of a lower score do not count.
        max_boxes: Of an image.

    Returns:
        Boxes of the same images, highest score first. ``feature`` is (M,), the row of
        each among all boxes: to read ``box_feature`` of no more boxes than count.
    """
    boxes = replace(boxes, feature=np.arange(len(boxes.score)))
    boxes = _taken(boxes, np.flatnonzero(boxes.score >= min_score)).one_per_prior()
    place = np.arange(len(boxes.score)) - np.repeat(boxes.offsets[:-1], boxes.count)
    return _taken(boxes, np.flatnonzero(place < max_boxes))


def scored_detections(
    boxes: Boxes, min_score: float = MIN_SCORE, max_boxes: int = MAX_BOXES
) -> Boxes:
    """As ``detections``, without places and class vectors.

    Those of a whole pool are large, and each step to the boxes that count copies them.
    """
    boxes = replace(boxes, xyxy=None, probability=None)
    return detections(boxes, min_score, max_boxes)


def _taken(boxes: Boxes, rows: np.ndarray) -> Boxes:
    """Boxes of some rows (sorted), of the same images."""
    if len(rows) == len(boxes.score):
        return boxes
    offsets = np.searchsorted(rows, boxes.offsets)
    fields = (getattr(boxes, name) for name in ImageBoxes._fields)
    return Boxes(offsets, *(None if f is None else f[rows] for f in fields))


def images_of(boxes: Boxes) -> np.ndarray:
    """Image of each box, (M,), int."""
    return np.repeat(np.arange(len(boxes)), boxes.count)


def box_scores(boxes: Boxes, kind: str) -> np.ndarray:
    """Uncertainty (or another score) of each box.

    Args:
        boxes: With ``probability``, or ``score`` for kinds that are named after it.
        kind: 'entropy': of the class vector, a question of its own per class and their
            entropies added up; what heads with a sigmoid per class ask, and well
            defined for a softmax too, [0, K ln 2]. 'softmax_entropy': of the class
            vector and what it lacks to 1 (background), [0, ln(K + 1)]. Which of the two
            a head means cannot be seen from its probabilities: sigmoids may sum to
            less than 1. 'score_entropy': of the score alone, [0, ln 2]. 'margin': 1 -
            the distance of the two highest probabilities (of p and 1 - p where there
            is one class), [0, 1]. 'least_confidence': 1 - the highest probability.
            'score': the score as it is.

    Returns:
        (M,) float64; nats where it is an entropy.

    Raises:
        InputError: If the kind is unknown, or a row of 'softmax_entropy' sums to more
            than 1.
    """
    check_kind(kind)
    if kind == 'score':
        return np.asarray(boxes.score, np.float64)
    if kind == 'score_entropy':
        score = np.asarray(boxes.score, np.float64)
        return entr(score) + entr(1 - score)
    return class_vector_scores(boxes.probability, kind)


def class_vector_scores(probability: np.ndarray, kind: str) -> np.ndarray:
    """As ``box_scores``, of class vectors (M, K)."""
    p = np.asarray(probability)
    if kind == 'entropy':
        return (entr(p) + entr(1 - p)).sum(1, dtype=np.float64)
    if kind == 'softmax_entropy':
        rest = 1 - p.sum(1, dtype=np.float64)
        if (rest < -1e-3).any():
            raise InputError(
                "kind='softmax_entropy': the classes of a row sum to "
                f'{1 - rest.min():.3g}, expected at most 1. This head has a sigmoid '
                "per class: write kind='entropy'."
            )
        return entr(p).sum(1, dtype=np.float64) + entr(rest.clip(0))
    if kind == 'margin' and p.shape[1] > 1:
        top = np.partition(p, -2, axis=1)[:, -2:].astype(np.float64)
        return 1 - (top[:, 1] - top[:, 0])
    top = p.max(1).astype(np.float64)
    return 1 - np.abs(2 * top - 1) if kind == 'margin' else 1 - top


def check_kind(kind: str) -> None:
    """InputError if there is no such score of a box."""
    if kind not in KINDS:
        raise InputError(f'kind must be one of {", ".join(KINDS)}, got {kind!r}')


def image_scores(
    boxes: Boxes, kind: str, over: str = 'sum', gamma: float = 0.0
) -> np.ndarray:
    """Scores of boxes to a score of their image.

    Args:
        boxes: See ``detections``.
        kind: See ``box_scores``.
        over: 'sum' (over n^gamma), 'mean' or 'max' of an image's boxes.
        gamma: [0, 1]: from the sum, 0, which likes crowds, to the mean, 1.

    Returns:
        (N,) float64, 0 where there are no boxes.
    """
    return to_images(boxes, box_scores(boxes, kind), over, gamma)


def to_images(
    boxes: Boxes, values: np.ndarray, over: str = 'sum', gamma: float = 0.0
) -> np.ndarray:
    """As ``image_scores``, of any numbers (M,) of boxes."""
    sums = boxes.reduce(values, over)
    return sums / crowd(boxes, gamma) if over == 'sum' else sums


def crowd(boxes: Boxes, gamma: float) -> np.ndarray:
    """n^gamma of the n boxes of an image, at least 1, (N,)."""
    return boxes.count.clip(1).astype(np.float64) ** gamma


def by_class(
    boxes: Boxes, values: np.ndarray, classes: int | None = None
) -> np.ndarray:
    """Sums of numbers (M,) of boxes over each image and label, (N, K) float64.

    ``classes`` is K; None: that of the class vectors.
    """
    if classes is None:
        classes = boxes.probability.shape[1]
    cell = images_of(boxes) * classes + boxes.label
    sums = np.bincount(cell, values, minlength=len(boxes) * classes)
    return sums.reshape(len(boxes), classes).astype(np.float64)


def expected_boxes(boxes: Boxes) -> np.ndarray:
    """Objects that an image should have, (N,): the sum of its scores."""
    return boxes.reduce(np.asarray(boxes.score, np.float64), 'sum')


def cut_at_boxes(rows: np.ndarray, expected: np.ndarray, limit: float) -> np.ndarray:
    """The beginning of a ranking that is expected to cost at most ``limit`` boxes.

    For planning: what is paid is known when the labels are there.

    Args:
        rows: Ranking, first choice first, of images.
        expected: Boxes of every image, (N,).
        limit: Boxes.

    Returns:
        The longest beginning of ``rows`` within the limit; its first image at least.
    """
    spent = np.cumsum(expected[rows])
    return rows[: max(1, np.searchsorted(spent, limit, 'right'))]


def rows_of(boxes: Boxes, images: np.ndarray) -> np.ndarray:
    """Rows of the boxes of some images, image after image, (m,)."""
    count = boxes.count[images]
    first = boxes.offsets[:-1][images] - (np.cumsum(count) - count)
    return np.repeat(first, count) + np.arange(count.sum())


def unit_features(outputs: Outputs, rows: np.ndarray) -> np.ndarray:
    """``box_feature`` of some boxes, each of length 1 (0 where it is 0), (m, F)."""
    features = np.asarray(outputs['box_feature'][rows], np.float32)
    length = np.sqrt((features**2).sum(1, keepdims=True))
    return features / np.maximum(length, np.finfo(np.float32).tiny)
