"""Query strategies: pure functions from pool outputs to a selection."""

from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.registry import QUERIES

from .badge import BADGE
from .bait import BAIT
from .clusters import TCM, TypiClust
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
    'DAL',
    'QUERIES',
    'TCM',
    'CoreSet',
    'DCoM',
    'Discriminator',
    'DropQuery',
    'Entropy',
    'LeastConfidence',
    'Margin',
    'MaxHerding',
    'Needs',
    'ProbCover',
    'QueryStrategy',
    'Random',
    'Selection',
    'TypiClust',
    'UHerding',
    'check_selection',
    'select_random',
    'write_selection',
]
