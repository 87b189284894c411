"""Readers of pool outputs, one per family of learners."""

from importlib.util import find_spec

from tjls_mm import models  # noqa: F401  mmdet needs its stand-ins first

from .base import DropoutMasks, PoolReader, find_reader

__all__ = ['DropoutMasks', 'PoolReader', 'find_reader']

if find_spec('mmdet') is not None:
    from .ssd import SSDReader  # noqa: F401

    __all__.append('SSDReader')

if find_spec('mmpretrain') is not None:
    from .classifier import ClassifierReader  # noqa: F401

    __all__.append('ClassifierReader')
