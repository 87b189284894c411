"""Query strategies: pure functions from pool outputs to a ranked selection."""

from .discriminator import select_lowest, select_margin, select_uncertain
from .random import select_random
from .strategy import QueryStrategy

__all__ = [
    'QueryStrategy',
    'select_lowest',
    'select_margin',
    'select_random',
    'select_uncertain',
]
