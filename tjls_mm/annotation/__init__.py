"""Annotators: who labels selected images."""

from .annotators import Annotator, Oracle

__all__ = ['Annotator', 'Oracle']
