"""Query strategies: pure functions from pool outputs to a selection."""

from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.registry import QUERIES

from .class_balanced import ClassBalanced
from .composition import QUERY_PARTS, Composition
from .controls import BoxCount, ForegroundRandom, WithControl
from .discriminator import Discriminator
from .random import Random, select_random
from .selection import check_selection, write_selection
from .strategy import QueryStrategy, Selection

__all__ = [
    'QUERIES',
    'QUERY_PARTS',
    'BoxCount',
    'ClassBalanced',
    'Composition',
    'Discriminator',
    'ForegroundRandom',
    'Needs',
    'QueryStrategy',
    'Random',
    'Selection',
    'WithControl',
    'check_selection',
    'select_random',
    'write_selection',
]
