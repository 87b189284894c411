"""Selection that balances classes: labels where they are few."""

from collections.abc import Sequence

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.box_scores import MAX_BOXES, MIN_SCORE
from tjls_mm.query.composition import Composition
from tjls_mm.query.parts import QUERY_PARTS, Balance, Scores, not_negative
from tjls_mm.registry import QUERIES


def balanced_order(
    gain: np.ndarray,
    adds: np.ndarray,
    have: np.ndarray,
    budget: int,
    power: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Pick greedily where gains are high in classes of which there are few labels.

    Again and again the image of highest sum over c of gain[i, c] / (have[c] +
    1)^power; have then grows by what the image adds. O(N K) time and O(N) memory per
    pick.

    Args:
        gain: (N, K), of each image in each class, at least 0.
        adds: (N, K), objects of each class that an image should bring.
        have: (K,), objects that there are.
        budget: 1 to N.
        power: Of the weight; 0 is no balance.

    Returns:
        Rows (budget,), first choice first, the first of equals first; and the class
        (budget,) of the largest term of each, -1 where all are 0.

    >>> gain = np.array([[0.9, 0.0], [0.8, 0.0], [0.0, 0.5]])
    >>> balanced_order(gain, gain, np.zeros(2), 3)
    (array([0, 2, 1]), array([0, 1, 0]))
    """
    # By class, so that a sum is made in the same way wherever an image stands.
    gain = np.ascontiguousarray(gain.T, np.float64)
    have = np.asarray(have, np.float64)
    taken, term = np.zeros((2, gain.shape[1]))
    rows, classes = np.zeros(budget, np.int64), np.full(budget, -1)
    for k in range(budget):
        weight = (have + 1) ** -power
        # Class after class: products of all classes at once would be as large as gain.
        value = np.zeros(len(taken))
        for of_class, factor in zip(gain, weight, strict=True):
            value += np.multiply(of_class, factor, out=term)
        value += taken
        rows[k] = row = value.argmax()
        if value[row] > 0:
            classes[k] = (gain[:, row] * weight).argmax()
        taken[row] = -np.inf
        have = have + adds[row]
    return rows, classes


@QUERY_PARTS.register_module()
class ClassBalance(Balance):
    """``balanced_order`` of a score's classes, from the labelled objects on.

    Args:
        power: Of the weight 1 / (have + 1)^power of a class, at least 0.
        class_weights: (K,), times these; at least 0.

    Raises:
        InputError: If a number is not finite or below 0.
    """

    needs = Needs(labelled=('label_count',))
    draws = False

    def __init__(
        self, power: float = 1.0, class_weights: Sequence[float] | None = None
    ) -> None:
        not_negative('power', power)
        self.power = power
        self.class_weights = None
        if class_weights is not None:
            self.class_weights = not_negative('class_weights', class_weights, ndim=1)

    def value(self, scores: Scores, have: np.ndarray) -> np.ndarray:
        return (self._gain(scores).T * (have[:, None] + 1) ** -self.power).sum(0)

    def rank(
        self, scores: Scores, have: np.ndarray, budget: int, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        gain = self._gain(scores)
        return balanced_order(gain, scores.expected, have, budget, self.power)

    def _gain(self, scores: Scores) -> np.ndarray:
        if self.class_weights is None:
            return scores.by_class
        if len(self.class_weights) != scores.by_class.shape[1]:
            raise InputError(
                f'class_weights has {len(self.class_weights)} numbers, expected one '
                f'for each of {scores.by_class.shape[1]} classes.'
            )
        return scores.by_class * self.class_weights


@QUERIES.register_module()
class ClassBalanced(Composition):
    """Uncertain objects of the classes of which there are few labels.

    E(i, c) is the sum of the entropies of the scores of an image's boxes of class c,
    have(c) the labelled objects of c and the sum of the scores of c over what was
    picked so far; again and again the image of highest sum over c of E(i, c) / (have(c)
    + 1)^power. A weight falls as its class is picked, by all copies of an image alike:
    that is balance, not diversity.

    Args:
        output: 'boxes', or 'probability' of a classifier, in place of E.
        score: 'score_entropy', 'score' or another kind of ``box_scores``; of a
            classifier a factor of its probability, see ``ClassScore``. None:
            'score_entropy' of boxes, 'score' of a classifier.
        power, class_weights: See ``ClassBalance``; 1 measured best, 0.5 is gentler.
        gamma: E is per (boxes of the image)^gamma.
        min_score, max_boxes: Boxes that count, see ``detections``.
        **settings: ``control``, ``cost``, ``noise`` and others of ``Composition``.
    """

    def __init__(
        self,
        output: str = 'boxes',
        score: str | None = None,
        power: float = 1.0,
        class_weights: Sequence[float] | None = None,
        gamma: float = 0.0,
        min_score: float = MIN_SCORE,
        max_boxes: int = MAX_BOXES,
        **settings,
    ) -> None:
        if output not in ('boxes', 'probability'):
            raise InputError(f"output must be 'boxes' or 'probability', got {output!r}")
        if output == 'boxes':
            part = dict(type='BoxScore', kind=score or 'score_entropy', gamma=gamma)
            part |= dict(min_score=min_score, max_boxes=max_boxes)
        else:
            part = dict(type='ClassScore', kind=score or 'score')
        balance = dict(type='ClassBalance', power=power, class_weights=class_weights)
        super().__init__(part, balance, **settings)
