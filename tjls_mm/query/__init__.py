"""Query strategies: pure functions from pool outputs to a selection."""

from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.registry import QUERIES

from .discriminator import Discriminator
from .random import Random, select_random
from .selection import check_selection, write_selection
from .strategy import QueryStrategy, Selection

__all__ = [
    'QUERIES',
    'Discriminator',
    'Needs',
    'QueryStrategy',
    'Random',
    'Selection',
    'check_selection',
    'select_random',
    'write_selection',
]
