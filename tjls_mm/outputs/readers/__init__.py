"""Readers of pool outputs, one per family of learners."""

from importlib.util import find_spec

from tjls_mm import models  # noqa: F401  mmdet needs its stand-ins first

from . import pretrained  # noqa: F401
from .base import DropoutMasks, PoolReader, find_reader, no_reader

__all__ = ['DropoutMasks', 'PoolReader', 'find_reader', 'no_reader']

# Importing a reader registers it.
if find_spec('mmdet') is not None:
    from . import dense, query, two_stage  # noqa: F401
if find_spec('mmpretrain') is not None:
    from . import classifier  # noqa: F401
