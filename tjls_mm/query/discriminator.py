"""Selection by the labelled-versus-pool discriminator.

All rules rank by the logit: its sigmoid P_S loses digits near 0 and 1.
"""

import math
from collections.abc import Callable, Mapping

from scipy.special import expit

from tjls_mm.query.pool_outputs import check_selection
from tjls_mm.query.strategy import QueryStrategy
from tjls_mm.randomness import tie_break
from tjls_mm.registry import QUERIES


def _smallest(
    logits: Mapping[str, float], budget: int, seed: int, key: Callable[[float], float]
) -> list[str]:
    check_selection(logits, budget)
    for image_id, logit in logits.items():
        if not math.isfinite(logit):
            raise ValueError(f'the logit of {image_id!r} is {logit}, expected a number')
    return sorted(logits, key=lambda i: (key(logits[i]), tie_break(i, seed), i))[
        :budget
    ]


def select_lowest(logits: Mapping[str, float], budget: int, seed: int) -> list[str]:
    """Pick the images that the discriminator finds least like the labelled set.

    Args:
        logits: image_id to the logit of being labelled.
        budget: How many ids to return, 1 to ``len(logits)``.
        seed: Orders equal logits.

    Returns:
        image_ids, lowest logit first; ties by a seeded hash of the id, so the
        order of the input does not matter.

    Raises:
        ValueError: If the budget does not fit or a logit is not finite.

    Source: TJLS, Eq. 5.
    """
    return _smallest(logits, budget, seed, key=lambda logit: logit)


def select_margin(
    logits: Mapping[str, float], budget: int, seed: int, margin: float = 0.1
) -> list[str]:
    """Pick the images whose P(labelled) is closest to a margin.

    Args:
        logits: image_id to the logit of being labelled.
        budget: How many ids to return, 1 to ``len(logits)``.
        seed: Orders equals.
        margin: Probability in (0, 1).

    Returns:
        image_ids, smallest |P - margin| first.

    Raises:
        ValueError: If the budget does not fit, a logit is not finite or the
            margin is not in (0, 1).

    Source: the published code of TJLS, after UncertainGCN (margin 0.1).
    """
    if not 0 < margin < 1:
        raise ValueError(f'margin must be in (0, 1), got {margin}')
    return _smallest(
        logits, budget, seed, key=lambda logit: abs(float(expit(logit)) - margin)
    )


def select_uncertain(logits: Mapping[str, float], budget: int, seed: int) -> list[str]:
    """Pick the images that the discriminator is least sure about.

    Args:
        logits: image_id to the logit of being labelled.
        budget: How many ids to return, 1 to ``len(logits)``.
        seed: Orders equals.

    Returns:
        image_ids, smallest |P - 0.5| first.

    Raises:
        ValueError: If the budget does not fit or a logit is not finite.
    """
    return _smallest(logits, budget, seed, key=abs)


class _DiscriminatorQuery(QueryStrategy):
    needs = ('logit',)

    def _logits(self, pool: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        return {image_id: outputs['logit'] for image_id, outputs in pool.items()}


@QUERIES.register_module(name='lowest')
class LowestQuery(_DiscriminatorQuery):
    """See ``select_lowest``."""

    def select(self, pool: Mapping, budget: int, seed: int) -> list[str]:
        """See ``select_lowest``."""
        return select_lowest(self._logits(pool), budget, seed)


@QUERIES.register_module(name='margin')
class MarginQuery(_DiscriminatorQuery):
    """See ``select_margin``.

    Args:
        margin: Probability in (0, 1).
    """

    def __init__(self, margin: float = 0.1) -> None:
        self.margin = margin

    def select(self, pool: Mapping, budget: int, seed: int) -> list[str]:
        """See ``select_margin``."""
        return select_margin(self._logits(pool), budget, seed, self.margin)


@QUERIES.register_module(name='uncertain')
class UncertainQuery(_DiscriminatorQuery):
    """See ``select_uncertain``."""

    def select(self, pool: Mapping, budget: int, seed: int) -> list[str]:
        """See ``select_uncertain``."""
        return select_uncertain(self._logits(pool), budget, seed)
