"""Scores of several parts as one: where they agree, or what any of them says."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.outputs.outputs import Outputs
from tjls_mm.query.parts import QUERY_PARTS, Scores, check_numbers, joined_needs
from tjls_mm.registry import build_own


class CombinedScore(ABC):
    """One score of several, class by class where they know of classes.

    What a pick should add to each class, and expected boxes, are the means of those
    that the parts expect.

    Args:
        scores: Configs of scores, two or more.
        weights: At least 0, one of each; None: 1.

    Raises:
        InputError: If an argument is none of that, or parts are of different classes.
    """

    def __init__(
        self, scores: Sequence[dict], weights: Sequence[float] | None = None
    ) -> None:
        name = type(self).__name__
        if isinstance(scores, dict) or len(scores) < 2:
            raise InputError(f'{name}: scores must be two or more, got {scores!r}')
        weights = [1.0] * len(scores) if weights is None else list(weights)
        if len(weights) != len(scores) or not all(w >= 0 for w in weights):
            raise InputError(
                f'{name}: weights must be {len(scores)} numbers of 0 or more, got '
                f'{weights}'
            )
        self.scores = [build_own(QUERY_PARTS, config) for config in scores]
        self.weights = weights
        self.needs = joined_needs(self.scores)
        notes = [getattr(score, 'note', '') for score in self.scores]
        self.note = ', '.join(filter(None, dict.fromkeys(notes)))

    def __call__(self, pool: Outputs, labelled: Outputs) -> Scores:
        parts = [score(pool, labelled) for score in self.scores]
        for part in parts:
            check_numbers(part.image, pool)
        self._check_classes(parts)
        by_class = self._by_class(parts)
        if by_class is None:
            image = self.combine([part.image for part in parts])
        else:
            image = by_class.sum(1)
        expected = _mean([part.expected for part in parts])
        return Scores(image, by_class, expected, _mean([part.boxes for part in parts]))

    def _by_class(self, parts: list[Scores]) -> np.ndarray | None:
        if any(part.by_class is None for part in parts):
            return None
        return self.combine([part.by_class for part in parts])

    def _check_classes(self, parts: list[Scores]) -> None:
        # A probe without labelled images says one thing of any number of classes.
        widths = {p.by_class.shape[1] for p in parts if p.by_class is not None} - {1}
        if len(widths) > 1:
            raise InputError(
                f'{type(self).__name__}: its scores are of {sorted(widths)} classes, '
                'expected as many of each: give learner and data the same classes.'
            )

    @abstractmethod
    def combine(self, values: list[np.ndarray]) -> np.ndarray:
        """One array of those of the parts, (N,) or (N, K), at least 0."""


def _mean(values: list[np.ndarray | None]) -> np.ndarray | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


@QUERY_PARTS.register_module()
class Product(CombinedScore):
    """Where scores agree: the product of score^weight, see ``CombinedScore``.

    A score that knows of no classes counts in all of them.
    """

    def _by_class(self, parts: list[Scores]) -> np.ndarray | None:
        if all(part.by_class is None for part in parts):
            return None
        return self.combine(
            [p.image[:, None] if p.by_class is None else p.by_class for p in parts]
        )

    def combine(self, values: list[np.ndarray]) -> np.ndarray:
        answer = 1.0
        for value, weight in zip(values, self.weights, strict=True):
            answer = answer * value**weight
        return answer


@QUERY_PARTS.register_module()
class Sum(CombinedScore):
    """What any score says: the weighted sum, see ``CombinedScore``.

    Each is in units of its mean, over images and classes, so that all weigh the same.
    Class by class only where all know of classes.
    """

    def combine(self, values: list[np.ndarray]) -> np.ndarray:
        answer = 0.0
        for value, weight in zip(values, self.weights, strict=True):
            answer = answer + weight * value / (value.mean() or 1.0)
        return answer
