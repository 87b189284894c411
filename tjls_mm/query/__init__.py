"""Query strategies: pure functions from pool outputs to a selection."""

from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.registry import QUERIES

from .clasp import ClaSP
from .class_balanced import ClassBalanced
from .composition import Composition
from .controls import BoxCount, ForegroundRandom, WithControl
from .discriminator import Discriminator
from .flip_consistency import FlipConsistency
from .object_herding import ObjectHerding
from .parts import QUERY_PARTS
from .ppal import PPAL
from .random import Random, select_random
from .selection import check_selection, write_selection
from .strategy import QueryStrategy, Selection

__all__ = [
    'QUERIES',
    'QUERY_PARTS',
    'BoxCount',
    'ClaSP',
    'ClassBalanced',
    'Composition',
    'Discriminator',
    'FlipConsistency',
    'ForegroundRandom',
    'Needs',
    'ObjectHerding',
    'PPAL',
    'QueryStrategy',
    'Random',
    'Selection',
    'WithControl',
    'check_selection',
    'select_random',
    'write_selection',
]
