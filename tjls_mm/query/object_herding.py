"""Images whose objects cover the objects of the pool."""

from dataclasses import dataclass

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Boxes, Outputs
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.box_scores import (
    MAX_BOXES,
    MIN_SCORE,
    rows_of,
    scored_detections,
    unit_features,
)
from tjls_mm.query.composition import Composition
from tjls_mm.query.diversity import CELLS, cover
from tjls_mm.query.parts import (
    QUERY_PARTS,
    Shortlist,
    labelled_counts,
    not_negative,
)
from tjls_mm.randomness import generator
from tjls_mm.registry import QUERIES


def best_similarities(
    outputs: Outputs, boxes: Boxes, images: np.ndarray, reference: np.ndarray
) -> np.ndarray:
    """Of the boxes of each image, the highest cosine to each reference box.

    Args:
        outputs: With ``box_feature``.
        boxes: Its ``scored_detections``.
        images: (n,), rows of images.
        reference: (R, F), of length 1.

    Returns:
        (n, R) float32, [0, 1], 0 of an image without boxes.
    """
    best = np.zeros((len(images), len(reference)), np.float32)
    if not len(reference):
        return best
    filled = np.flatnonzero(boxes.count[images])
    places = np.cumsum(boxes.count[images[filled]]) * len(reference) // CELLS
    for part in np.split(filled, np.flatnonzero(np.diff(places)) + 1):
        if not len(part):
            continue
        rows = rows_of(boxes, images[part])
        starts = np.append(0, np.cumsum(boxes.count[images[part]])[:-1])
        cosine = unit_features(outputs, boxes.feature[rows]) @ reference.T
        highest = np.maximum.reduceat(cosine, starts, axis=0)
        # Copies have the same, and what is equally near is so wherever it stands.
        best[part] = highest.clip(0).round(5)
    return best


@QUERY_PARTS.register_module()
@dataclass(frozen=True)
class BoxHerding:
    """Images whose boxes cover the pool's boxes, beside those of labelled images.

    Args:
        power: Boxes weigh score / (labelled objects of their class + 1)^power.
        reference: Boxes of the pool that are to be covered, drawn by weight.
        min_candidates: Images that are looked at, of those on the list: the first of
            so many or 20 times the budget.
        min_score, max_boxes: Boxes that count, see ``detections``.

    Raises:
        InputError: If the power is not finite or below 0, or a count is below 1.
    """

    power: float = 0.5
    reference: int = 2_000
    min_candidates: int = 20_000
    min_score: float = MIN_SCORE
    max_boxes: int = MAX_BOXES

    needs = Needs(
        pool=('boxes', 'box_feature'),
        labelled=('boxes', 'box_feature', 'label_count'),
    )

    def __post_init__(self) -> None:
        not_negative('power', self.power)
        for name in ('reference', 'min_candidates', 'max_boxes'):
            if not getattr(self, name) >= 1:
                raise InputError(
                    f'{name} must be at least 1, got {getattr(self, name)}'
                )

    def __call__(self, images: Shortlist, budget: int) -> np.ndarray:
        pool, labelled = images.pool, images.labelled
        boxes = self._detections(pool)
        have = labelled_counts(labelled, pool['boxes'].probability.shape[1])
        weight = boxes.score / (have + 1)[boxes.label] ** self.power
        rows, weight = self._drawn(weight, images.seed)
        reference = unit_features(pool, boxes.feature[rows])
        taken = best_similarities(pool, boxes, images.taken, reference)
        coverage = taken.max(0, initial=0)
        if n_labelled := len(labelled.image_ids):
            known = self._detections(labelled)
            known = best_similarities(labelled, known, np.arange(n_labelled), reference)
            np.maximum(coverage, known.max(0), out=coverage)
            del known
        candidates = images.rows[: max(self.min_candidates, 20 * budget)]
        best = best_similarities(pool, boxes, candidates, reference)
        return cover(best, weight, coverage, images.cost[: len(candidates)], budget)

    def _detections(self, outputs: Outputs) -> Boxes:
        return scored_detections(outputs['boxes'], self.min_score, self.max_boxes)

    def _drawn(self, weight: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows of reference boxes and their weights, right in expectation."""
        if len(weight) <= self.reference:
            return np.arange(len(weight)), weight
        chance = weight / weight.sum()
        rng = generator(seed, 'reference')
        return np.unique(
            rng.choice(len(weight), self.reference, p=chance), return_counts=True
        )


@QUERIES.register_module()
class ObjectHerding(Composition):
    """Images whose objects cover the pool's objects, of rare classes above all.

    Reference boxes are drawn from the pool by score / (labelled objects of the class +
    1)^power; each is covered as far as its best cosine to a box of a labelled image;
    again and again the image is picked that adds most coverage for its cost. The
    ``score`` of an image is the weight of its own boxes, for its cost.

    Args:
        power, reference, min_candidates: See ``BoxHerding``.
        min_score, max_boxes: Boxes that count, see ``detections``.
        cost: 'boxes': coverage per 1 + expected boxes. 'image': per image, which buys
            crowds, since more boxes cover more.
        **settings: ``control``, ``base_cost`` and others of ``Composition``.
    """

    def __init__(
        self,
        power: float = 0.5,
        reference: int = 2_000,
        min_candidates: int = 20_000,
        min_score: float = MIN_SCORE,
        max_boxes: int = MAX_BOXES,
        cost: str = 'boxes',
        **settings,
    ) -> None:
        count = dict(min_score=min_score, max_boxes=max_boxes)
        diversity = dict(type='BoxHerding', power=power, reference=reference, **count)
        super().__init__(
            dict(type='BoxScore', kind='score', **count),
            dict(type='ClassBalance', power=power),
            diversity=diversity | dict(min_candidates=min_candidates),
            shortlist=None,
            cost=cost,
            **settings,
        )
