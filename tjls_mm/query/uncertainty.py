"""What a learner is least sure of: entropy, margin and least confidence."""

import numpy as np
from scipy.special import entr

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Outputs, blocks
from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.query.noise import power_draw
from tjls_mm.query.strategy import QueryStrategy, Selection
from tjls_mm.randomness import generator
from tjls_mm.registry import QUERIES

OVER = (None, 'sum', 'max', 'mean')


def uncertainty(probability: np.ndarray, kind: str) -> np.ndarray:
    """How unsure class probabilities are.

    Args:
        probability: (N, K), 0 and above.
        kind: 'entropy' in nats, [0, ln K]; 'margin': 1 less the difference of the two
            largest, [0, 1]; 'least_confidence': 1 less the largest, [0, 1].

    Returns:
        (N,) float64, higher is less sure.

    Source: Settles, Active Learning Literature Survey, 2009.

    >>> uncertainty(np.array([[0.5, 0.25, 0.25], [1, 0, 0]]), 'margin')
    array([0.75, 0.  ])
    """
    scores = np.empty(len(probability))
    for start, block in blocks(probability):
        scores[start : start + len(block)] = _KINDS[kind](block.astype(np.float64))
    return scores


def _margin(p: np.ndarray) -> np.ndarray:
    if p.shape[1] == 1:
        return 1 - p[:, 0]
    top = np.partition(p, -2, axis=1)[:, -2:]
    return 1 - (top[:, 1] - top[:, 0])


_KINDS = {
    'entropy': lambda p: entr(p).sum(1),
    'margin': _margin,
    'least_confidence': lambda p: 1 - p.max(1),
}


class Uncertainty(QueryStrategy):
    """The images of highest uncertainty, or a draw by its power.

    Args:
        over: None: of a classifier's ``probability``. 'sum', 'max' or 'mean': over the
            ``boxes`` of a detector.
        gamma: With 'sum': it is divided by the number of boxes to this power, 0 to 1.
        beta: Draw in proportion to uncertainty ** beta; None takes the highest.

    Raises:
        InputError: If an argument is none of that.
    """

    kind = ''

    def __init__(
        self, over: str | None = None, gamma: float = 0.0, beta: float | None = None
    ) -> None:
        if over not in OVER:
            raise InputError(f'over must be one of {OVER}, got {over!r}')
        if beta is not None and not beta >= 0:
            raise InputError(f'beta must be None or 0 and above, got {beta}')
        self.over = over
        self.gamma = gamma
        self.beta = beta
        self.needs = Needs(pool=('boxes' if over else 'probability',))

    def select(
        self, pool: Outputs, labelled: Outputs, budget: int, seed: int
    ) -> Selection:
        score = self.score(pool)
        if self.beta is None:
            return Selection(
                pool.smallest(-score, budget, seed), {'uncertainty': score}
            )
        rng = generator(seed, 'power', self.kind)
        rows, first = power_draw(score, self.beta, budget, rng)
        return Selection(rows, {'uncertainty': score, 'draw_probability': first})

    def score(self, pool: Outputs) -> np.ndarray:
        """(N,), finite, 0 and above."""
        if self.over:
            from tjls_mm.query.box_scores import detections, image_scores

            boxes = detections(pool['boxes'])
            return image_scores(boxes, self.kind, self.over, self.gamma)
        with np.errstate(invalid='ignore'):
            score = uncertainty(pool['probability'], self.kind)
        bad = np.flatnonzero(~(np.isfinite(score) & (score > -1e-5)))
        if len(bad):
            raise InputError(
                f"'probability' of {pool.image_ids[bad[0]]!r} gives the {self.kind} "
                f'{score[bad[0]]}, expected probabilities that are finite, 0 to 1.'
            )
        return score.clip(min=0)


@QUERIES.register_module()
class Entropy(Uncertainty):
    """Highest entropy of the class probabilities first; see ``Uncertainty``."""

    kind = 'entropy'


@QUERIES.register_module()
class Margin(Uncertainty):
    """Smallest difference of the two likeliest classes first; see ``Uncertainty``."""

    kind = 'margin'


@QUERIES.register_module()
class LeastConfidence(Uncertainty):
    """Lowest probability of the likeliest class first; see ``Uncertainty``."""

    kind = 'least_confidence'
