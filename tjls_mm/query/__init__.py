"""Query strategies: pure functions from pool outputs to a selection."""

from tjls_mm.outputs.vocabulary import Needs
from tjls_mm.registry import QUERIES

from .auto import Auto
from .badge import BADGE
from .bait import BAIT
from .clasp import ClaSP
from .class_balanced import ClassBalanced
from .clusters import TCM, TypiClust
from .combined_scores import Product, Sum
from .composition import Composition
from .controls import BoxCount, ForegroundRandom, WithControl
from .core_set import CoreSet
from .coverage import DCoM, ProbCover
from .discriminator import DAL, Discriminator
from .drop_query import DropQuery
from .flip_consistency import FlipConsistency
from .herding import MaxHerding, UHerding
from .object_herding import ObjectHerding
from .parts import QUERY_PARTS
from .ppal import PPAL
from .probe import ProbeScore, WithProbe
from .random import Random, select_random
from .selection import check_selection, write_selection
from .strategy import QueryStrategy, Selection
from .uncertainty import Entropy, LeastConfidence, Margin

__all__ = [
    'Auto',
    'BADGE',
    'BAIT',
    'BoxCount',
    'ClaSP',
    'ClassBalanced',
    'Composition',
    'CoreSet',
    'DAL',
    'DCoM',
    'Discriminator',
    'DropQuery',
    'Entropy',
    'FlipConsistency',
    'ForegroundRandom',
    'LeastConfidence',
    'Margin',
    'MaxHerding',
    'Needs',
    'ObjectHerding',
    'PPAL',
    'ProbCover',
    'ProbeScore',
    'Product',
    'QUERIES',
    'QUERY_PARTS',
    'QueryStrategy',
    'Random',
    'Selection',
    'Sum',
    'TCM',
    'TypiClust',
    'UHerding',
    'WithControl',
    'WithProbe',
    'check_selection',
    'select_random',
    'write_selection',
]
