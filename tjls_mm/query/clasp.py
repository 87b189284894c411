"""Noisy uncertainty, a part of the budget for each class."""

from collections.abc import Iterator

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.query.box_scores import MAX_BOXES, MIN_SCORE
from tjls_mm.query.composition import Composition
from tjls_mm.query.parts import QUERY_PARTS, Balance, Scores
from tjls_mm.registry import QUERIES


def stratified_order(
    image: np.ndarray,
    by_class: np.ndarray,
    budget: int,
    share: float,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Classes take turns to pick their best image; then the best of all are picked.

    Args:
        image: (N,), score of each image.
        by_class: (N, K), of each image in each class; a class does not pick where it
            has 0, and what it cannot pick is left to all.
        budget: 1 to N.
        share: [0, 1], of the budget that the classes pick.
        rng: Decides which class is first.

    Returns:
        Rows (budget,), in the order they were picked, the first of equals first; and
        the class (budget,) that picked each, -1 for those after the turns.
    """
    taken = np.zeros(len(image), bool)

    def best_first(scores: np.ndarray) -> Iterator[int]:
        order = np.argsort(-scores, kind='stable')
        return (row for row in order[scores[order] > 0] if not taken[row])

    waiting = {
        k: best_first(by_class[:, k]) for k in rng.permutation(by_class.shape[1])
    }
    rows, classes, of_classes = [], [], round(share * budget)
    while waiting and len(rows) < of_classes:
        for k, candidates in list(waiting.items())[: of_classes - len(rows)]:
            row = next(candidates, None)
            if row is None:
                del waiting[k]
                continue
            taken[row] = True
            rows.append(row)
            classes.append(k)
    rest = np.argsort(-image, kind='stable')
    rest = rest[~taken[rest]][: budget - len(rows)]
    return (
        np.append(rows, rest).astype(np.int64),
        np.append(classes, np.full(len(rest), -1)).astype(np.int64),
    )


@QUERY_PARTS.register_module()
class Strata(Balance):
    """``stratified_order``; noise is drawn for each class of its own.

    Args:
        share: [0, 1], of the budget that the classes pick.
    """

    noise_by_class = True

    def __init__(self, share: float = 0.66) -> None:
        if not 0 <= share <= 1:
            raise InputError(f'share must be in [0, 1], got {share}')
        self.share = share

    def rank(
        self, scores: Scores, have: np.ndarray, budget: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        return stratified_order(scores.image, scores.by_class, budget, self.share, rng)


@QUERIES.register_module()
class ClaSP(Composition):
    """Class-stratified, power-noised entropy.

    The score of an image in class c is the sum over its n boxes of e_b p_b[c] / n^0.5,
    with e_b the entropy of the class vector of box b. A share of the budget is split
    evenly over the classes, the rest goes by the sum of e_b / n^0.5; every draw is
    proportional to score^beta.

    Args:
        beta: Of the noise; 10 measured best of 1, 10 and schedules up to 100.
        share: Of the classes.
        kind: Of the entropy, 'entropy' or 'softmax_entropy', see ``box_scores``.
        min_score, max_boxes: Boxes that count, see ``detections``.
        **settings: ``control``, ``cost`` and others of ``Composition``.

    Source: after ClaSP PE of nnActive, for segmentation, whose beta grows over the
    stages. Its factor 1 / log(K + 1) of the entropy decides nothing and is left out.
    """

    def __init__(
        self,
        beta: float = 10.0,
        share: float = 0.66,
        kind: str = 'entropy',
        min_score: float = MIN_SCORE,
        max_boxes: int = MAX_BOXES,
        **settings,
    ) -> None:
        score = dict(type='BoxScore', kind=kind, gamma=0.5, soft=True)
        score |= dict(min_score=min_score, max_boxes=max_boxes)
        super().__init__(score, dict(type='Strata', share=share), beta, **settings)
