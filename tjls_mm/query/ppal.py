"""Difficult images that differ in their objects, class by class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Boxes, Outputs
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.box_scores import (
    MAX_BOXES,
    MIN_SCORE,
    by_class,
    detections,
    rows_of,
    unit_features,
)
from tjls_mm.query.centres import k_center
from tjls_mm.query.composition import Composition
from tjls_mm.query.diversity import CELLS
from tjls_mm.query.parts import QUERY_PARTS, BoxScore, Shortlist
from tjls_mm.registry import QUERIES

_JUDGES = 256
"""Members of a cluster, nearest to its medoid, that a new medoid is chosen among."""


def difficulty_weights(quality: np.ndarray, alpha: float = 0.3) -> np.ndarray:
    """Weight of each class by how badly it is detected, (K,), 1 to 2.

    Args:
        quality: (K,), [0, 1], high where a class is detected well.
        alpha: Above 0; the smaller, the sooner a weight is near 2.

    Source: PPAL (Yang et al., 2024), Sec. 3.2.
    """
    return 1 + alpha * np.log1p(np.expm1(1 / alpha) * (1 - quality))


def class_quality(boxes: Boxes) -> np.ndarray:
    """Mean score of the boxes of each class, 0 without one, (K,)."""
    score = by_class(boxes, np.asarray(boxes.score, np.float64)).sum(0)
    return score / by_class(boxes, np.ones(len(boxes.score))).sum(0).clip(1)


@QUERY_PARTS.register_module()
@dataclass(frozen=True)
class DifficultyScore(BoxScore):
    """``BoxScore`` with the weight of the box's class, by ``difficulty_weights``.

    Args:
        alpha: See ``difficulty_weights``.
        quality: [0, 1], of each class, (K,), e.g. its AP, or of all. None:
            ``class_quality`` of the labelled images.
    """

    kind: str = 'entropy'
    alpha: float = 0.3
    quality: Sequence[float] | float | None = None

    needs = Needs(pool=('boxes',), labelled=('boxes',))

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.alpha > 0:
            raise InputError(f'alpha must be above 0, got {self.alpha}')
        if self.quality is not None and not all(
            0 <= q <= 1 for q in np.ravel(self.quality)
        ):
            raise InputError(f'quality must be in [0, 1], got {self.quality}')

    def values(self, boxes: Boxes, labelled: Outputs) -> np.ndarray:
        classes = boxes.probability.shape[1]
        quality = self.quality
        if quality is None:
            quality = 0.0
            if labelled.image_ids:
                known = detections(labelled['boxes'], self.min_score, self.max_boxes)
                quality = class_quality(known)
        if np.shape(quality) not in ((), (classes,)):
            raise InputError(
                f'quality has {len(quality)} numbers, expected one for each of '
                f'{classes} classes.'
            )
        weight = difficulty_weights(np.broadcast_to(quality, classes), self.alpha)
        return super().values(boxes, labelled) * weight[boxes.label]


@dataclass(frozen=True)
class ObjectsOfImages:
    """M boxes of n images, those of a class side by side, and of an image within it.

    Attributes:
        n_images: n; there may be images without boxes.
        image, label, score: (M,).
        feature: (M, F), of length 1.
    """

    n_images: int
    image: np.ndarray
    label: np.ndarray
    score: np.ndarray
    feature: np.ndarray

    def of_images(self, images: np.ndarray) -> 'ObjectsOfImages':
        """Of some of the images, numbered in this order."""
        place = np.full(self.n_images, -1)
        place[images] = np.arange(len(images))
        kept = np.flatnonzero(place[self.image] >= 0)
        fields = (f[kept] for f in (self.label, self.score, self.feature))
        return ObjectsOfImages(len(images), place[self.image[kept]], *fields)

    def of_class(self, label: int) -> slice:
        """Rows of a class."""
        return slice(*np.searchsorted(self.label, [label, label + 1]))


def read_objects(outputs: Outputs, boxes: Boxes, images) -> ObjectsOfImages:
    """Objects of some images, from ``detections`` and ``box_feature``."""
    images = np.asarray(images, np.int64)
    image = np.repeat(np.arange(len(images)), boxes.count[images])
    rows = rows_of(boxes, images)
    order = np.lexsort((image, boxes.label[rows]))
    image, rows = image[order], rows[order]
    feature = unit_features(outputs, boxes.feature[rows])
    score = boxes.score[rows].astype(np.float32)
    return ObjectsOfImages(len(images), image, boxes.label[rows], score, feature)


def image_distances(a: ObjectsOfImages, b: ObjectsOfImages) -> np.ndarray:
    """Distances of the images of a and b by their objects, (n_a, n_b), [0, 2].

    A box is as far from an image as 1 - cosine to the nearest of its boxes of the same
    class, 2 if there is none; an image is as far from another as its boxes are,
    weighted by score; the distance is the mean of both ways. Two images without boxes
    are at 0.

    Source: PPAL, Sec. 3.3 (category-conditioned matching similarity).
    """
    near_a = np.zeros((a.n_images, b.n_images), np.float32)
    near_b = np.zeros_like(near_a)
    for label in np.unique(a.label):
        rows_a, rows_b = a.of_class(label), b.of_class(label)
        if rows_b.start == rows_b.stop:
            continue
        likeness = a.feature[rows_a] @ b.feature[rows_b].T + 1  # [0, 2]
        (start_a, image_a), (start_b, image_b) = (
            _runs(x.image[rows]) for x, rows in ((a, rows_a), (b, rows_b))
        )
        cells = np.ix_(image_a, image_b)
        best = np.maximum.reduceat(likeness, start_b, axis=1)
        best *= a.score[rows_a, None]
        near_a[cells] += np.add.reduceat(best, start_a, axis=0)
        best = np.maximum.reduceat(likeness, start_a, axis=0)
        best *= b.score[rows_b]
        near_b[cells] += np.add.reduceat(best, start_b, axis=1)
    sums = [np.bincount(x.image, x.score, minlength=x.n_images) for x in (a, b)]
    total_a, total_b = (np.float32(s) for s in sums)
    near_a /= np.maximum(total_a, 1e-12)[:, None]
    near_b /= np.maximum(total_b, 1e-12)
    distance = 2 - (near_a + near_b) / 2
    distance[np.ix_(total_a == 0, total_b == 0)] = 0
    # Copies are at 0, and what is equally far is so wherever it stands.
    return distance.round(5)


def _runs(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where runs of equal numbers start, and the numbers."""
    start = np.append(0, np.flatnonzero(np.diff(image)) + 1)
    return start, image[start]


def nearest_distances(objects: ObjectsOfImages, others: ObjectsOfImages) -> np.ndarray:
    """Of each image to the nearest of others, (n,); inf if there are none."""
    nearest = np.full(objects.n_images, np.inf, np.float32)
    cells = len(objects.image) * max(1, len(others.image)) / max(1, others.n_images)
    step = max(1, int(CELLS / max(1, cells)))
    for start in range(0, others.n_images, step):
        images = np.arange(start, min(start + step, others.n_images))
        distance = image_distances(others.of_images(images), objects)
        np.minimum(nearest, distance.min(0), out=nearest)
    return nearest


def k_medoids(
    objects: ObjectsOfImages,
    medoids: np.ndarray,
    distances: np.ndarray,
    covered: np.ndarray,
    iterations: int,
) -> np.ndarray:
    """Move medoids to the middle of the images that are nearest to them.

    Args:
        objects: Of n images.
        medoids: (b,), images to begin with.
        distances: (b, n), from each of these to all.
        covered: (n,), to the nearest of what is labelled: images that are nearer to it
            than to any medoid move none.
        iterations: At most.

    Returns:
        (b,), medoids in the order of those that they began as.
    """
    medoids, distances = medoids.copy(), distances.copy()
    for _ in range(iterations):
        owner = distances.argmin(0)
        owner[covered < distances.min(0)] = -1
        owner[medoids] = np.arange(len(medoids))
        moved = False
        for k in np.flatnonzero(np.bincount(owner[owner >= 0]) > 2):
            members = np.flatnonzero(
                (owner == k) & (np.arange(len(owner)) != medoids[k])
            )
            near = np.argsort(distances[k, members], kind='stable')[: _JUDGES - 1]
            members = np.append(medoids[k], members[near])
            some = objects.of_images(members)
            sums = image_distances(some, some).sum(0, dtype=np.float64)
            # What rounding makes of equals is no reason to move.
            if sums.min() < sums[0] - 1e-4:
                medoids[k], moved = members[sums.argmin()], True
                distances[k] = _distances_to(objects, medoids[k])
        if not moved:
            break
    return medoids


def _distances_to(objects: ObjectsOfImages, image: int) -> np.ndarray:
    return image_distances(objects.of_images(np.array([image])), objects)[0]


@QUERY_PARTS.register_module()
@dataclass(frozen=True)
class SameClassBoxes:
    """Images that differ in their objects: k-center from L on, then k-medoids.

    Time and memory grow with the square of the shortlist, not of the pool.

    Args:
        iterations: Of ``k_medoids``, at most; 0: greedy k-center alone.
        min_score, max_boxes: Boxes that are compared, see ``detections``; time grows
            with the square of how many.
    """

    iterations: int = 5
    min_score: float = MIN_SCORE
    max_boxes: int = 30

    needs = Needs(pool=('boxes', 'box_feature'), labelled=('boxes', 'box_feature'))

    def __call__(self, images: Shortlist, budget: int) -> np.ndarray:
        objects = self._objects(images.pool, images.rows)
        taken = self._objects(images.pool, images.taken)
        covered = nearest_distances(objects, taken)
        if images.labelled.image_ids:
            known = self._objects(
                images.labelled, range(len(images.labelled.image_ids))
            )
            np.minimum(covered, nearest_distances(objects, known), out=covered)
            del known
        distances = []

        def distance_to(image: int) -> np.ndarray:
            distances.append(_distances_to(objects, image))
            return distances[-1]

        medoids, _ = k_center(distance_to, covered, budget)
        if not self.iterations:
            return medoids
        return k_medoids(
            objects, medoids, np.stack(distances), covered, self.iterations
        )

    def _objects(self, outputs: Outputs, rows) -> ObjectsOfImages:
        boxes = detections(outputs['boxes'], self.min_score, self.max_boxes)
        return read_objects(outputs, boxes, rows)


@QUERIES.register_module()
class PPAL(Composition):
    """Difficult images (a shortlist), of which those are picked that differ.

    Args:
        quality, alpha: See ``DifficultyScore``: the entropies of boxes are weighted by
            how badly their class is detected, and summed.
        shortlist: Times the budget.
        iterations: See ``SameClassBoxes``.
        min_score, max_boxes: Boxes that count, see ``detections``.
        compared: Boxes of an image at most that distances are made of.
        **settings: ``control``, ``balance`` and others of ``Composition``.

    Source: PPAL (Yang et al., CVPR 2024). Departures: centres begin with the labelled
    images and not with a random one; no matrix of all distances; the quality of a class
    is not tracked in training.
    """

    def __init__(
        self,
        quality: Sequence[float] | float | None = None,
        alpha: float = 0.3,
        shortlist: float = 4,
        iterations: int = 5,
        min_score: float = MIN_SCORE,
        max_boxes: int = MAX_BOXES,
        compared: int = 30,
        **settings,
    ) -> None:
        score = dict(type='DifficultyScore', alpha=alpha, quality=quality)
        score |= dict(min_score=min_score, max_boxes=max_boxes)
        diversity = dict(type='SameClassBoxes', iterations=iterations)
        diversity |= dict(min_score=min_score, max_boxes=compared)
        super().__init__(score, diversity=diversity, shortlist=shortlist, **settings)
