"""Query strategies: pure functions from pool outputs to a selection."""

from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.registry import QUERIES

from .badge import BADGE
from .bait import BAIT
from .class_balanced import ClassBalanced
from .clusters import TCM, TypiClust
from .composition import QUERY_PARTS, Composition
from .controls import BoxCount, ForegroundRandom, WithControl
from .core_set import CoreSet
from .coverage import DCoM, ProbCover
from .discriminator import DAL, Discriminator
from .drop_query import DropQuery
from .herding import MaxHerding, UHerding
from .random import Random, select_random
from .selection import check_selection, write_selection
from .strategy import QueryStrategy, Selection
from .uncertainty import Entropy, LeastConfidence, Margin

__all__ = [
    'BADGE',
    'BAIT',
    'BoxCount',
    'ClassBalanced',
    'Composition',
    'CoreSet',
    'DAL',
    'DCoM',
    'Discriminator',
    'DropQuery',
    'Entropy',
    'ForegroundRandom',
    'LeastConfidence',
    'Margin',
    'MaxHerding',
    'Needs',
    'ProbCover',
    'QUERIES',
    'QUERY_PARTS',
    'QueryStrategy',
    'Random',
    'Selection',
    'TCM',
    'TypiClust',
    'UHerding',
    'WithControl',
    'check_selection',
    'select_random',
    'write_selection',
]
