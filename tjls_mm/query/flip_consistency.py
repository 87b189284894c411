"""Whether a detector says the same of an image and of its mirror image."""

from dataclasses import dataclass

import numpy as np
from scipy.special import rel_entr

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Boxes, Outputs, blocks
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.box_scores import MAX_BOXES, MIN_SCORE, detections, expected_boxes
from tjls_mm.query.composition import Composition
from tjls_mm.query.parts import QUERY_PARTS, Scores
from tjls_mm.registry import QUERIES


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU of boxes (m, 4) and (n, 4), xyxy: (m, n), 0 where both are empty."""
    both = np.ones((len(a), len(b)), np.float32)
    for low, high in ((0, 2), (1, 3)):
        side = np.minimum(a[:, None, high], b[:, high])
        side -= np.maximum(a[:, None, low], b[:, low])
        both *= np.maximum(side, 0, out=side)
    area_a, area_b = ((x[:, 2:] - x[:, :2]).clip(0).prod(1) for x in (a, b))
    union = area_a[:, None] + area_b - both
    return np.divide(both, union, out=np.zeros_like(both), where=union > 0)


def js_divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Jensen-Shannon divergence of the rows of (m, K), which need not sum to 1; nats.

    Each row is divided by its sum; ln 2 where one of the two is all 0.
    """
    p, q = (np.asarray(x, np.float64) for x in (p, q))
    sums = p.sum(1), q.sum(1)
    p, q = (
        x / np.maximum(s, 1e-12)[:, None] for x, s in zip((p, q), sums, strict=True)
    )
    middle = (p + q) / 2
    js = (rel_entr(p, middle) + rel_entr(q, middle)).sum(1) / 2
    return np.where(np.minimum(*sums) > 0, js, np.log(2))


def agreements(boxes: Boxes, flipped: Boxes) -> np.ndarray:
    """How far the box of best overlap in the mirror image says the same.

    Args:
        boxes, flipped: Of the same N images, in pixels of the image as it is.

    Returns:
        (M,) float64, IoU + (1 - JS) (p + q) / 2 in [0, 2], with p and q the highest
        class probabilities of the two; of a box that overlaps none, p / 2 (1 - ln 2).
    """
    match = np.zeros(len(boxes.score), np.int64)
    iou = np.zeros(len(boxes.score))
    for image in np.flatnonzero((boxes.count > 0) & (flipped.count > 0)):
        own = slice(*boxes.offsets[image : image + 2])
        other = slice(*flipped.offsets[image : image + 2])
        table = overlaps(boxes.xyxy[own], flipped.xyxy[other])
        iou[own] = table.max(1)
        match[own] = table.argmax(1) + other.start
    agreement = iou
    for start, p in blocks(boxes.probability):
        part = slice(start, start + len(p))
        q = np.zeros_like(p)
        matched = iou[part] > 0
        q[matched] = flipped.probability[match[part][matched]]
        tops = p.max(1).astype(np.float64) + q.max(1)
        agreement[part] += (1 - js_divergence(p, q)) * tops / 2
    return agreement


def flip_inconsistency(
    boxes: Boxes, flipped: Boxes, base: float = 1.3, empty: float = 0.5
) -> np.ndarray:
    """Least distance of a box's agreement from a base, (N,), low: inconsistent.

    Args:
        boxes, flipped: See ``agreements``.
        base: Agreement that tells most: neither a sure object nor one that is gone.
        empty: [0, 1]: an image without boxes gets this quantile of the others' values
            (0 where none has any), neither first nor last by accident.
    """
    distance = np.abs(agreements(boxes, flipped) - base)
    least = -boxes.reduce(-distance, 'max')
    filled = boxes.count > 0
    if filled.any():
        least[~filled] = np.quantile(least[filled], empty)
    return least


@QUERY_PARTS.register_module()
@dataclass(frozen=True)
class FlipScore:
    """Score of an image: ``flip_inconsistency``, less than the most that it can be.

    Args:
        base, empty: See ``flip_inconsistency``.
        min_score, max_boxes: Boxes that count, see ``detections``.
    """

    base: float = 1.3
    empty: float = 0.5
    min_score: float = MIN_SCORE
    max_boxes: int = MAX_BOXES

    needs = Needs(pool=('boxes', 'flip_boxes'))

    def __post_init__(self) -> None:
        if not 0 <= self.base <= 2:
            raise InputError(f'base must be in [0, 2], got {self.base}')
        if not 0 <= self.empty <= 1:
            raise InputError(f'empty must be in [0, 1], got {self.empty}')

    def __call__(self, pool: Outputs, labelled: Outputs) -> Scores:
        boxes, flipped = (
            detections(pool[name], self.min_score, self.max_boxes)
            for name in ('boxes', 'flip_boxes')
        )
        least = flip_inconsistency(boxes, flipped, self.base, self.empty)
        most = max(self.base, 2 - self.base)
        return Scores((most - least).clip(0), boxes=expected_boxes(boxes))


@QUERIES.register_module()
class FlipConsistency(Composition):
    """Images with a box of which the mirror image says something else, but not all.

    The ``score`` is 1.3 less the smallest distance of an agreement from 1.3.

    Args:
        base, empty: See ``flip_inconsistency``.
        min_score, max_boxes: Boxes that count, see ``detections``.
        **settings: ``control``, ``noise`` and others of ``Composition``.

    Source: CALD (Yu et al., 2022), its first step, with one augmentation. There an
    image without boxes comes first.
    """

    def __init__(
        self,
        base: float = 1.3,
        empty: float = 0.5,
        min_score: float = MIN_SCORE,
        max_boxes: int = MAX_BOXES,
        **settings,
    ) -> None:
        score = dict(type='FlipScore', base=base, empty=empty)
        score |= dict(min_score=min_score, max_boxes=max_boxes)
        super().__init__(score, **settings)
