"""Bottlenecks, discriminator and jointly trained heads."""

from importlib.util import find_spec

from tjls_mm import compat  # noqa: F401  mmdet.models needs its stand-ins

from .bottlenecks import (
    BatchTransformer,
    ContextBank,
    batch_bottlenecks,
    fill_context_banks,
)
from .discriminator_head import DiscriminatorHead
from .joint_learner import JointLearner, find_joint_learner

__all__ = [
    'BatchTransformer',
    'ContextBank',
    'DiscriminatorHead',
    'JointLearner',
    'batch_bottlenecks',
    'fill_context_banks',
    'find_joint_learner',
]

if find_spec('mmdet') is not None:
    from .joint_ssd_head import JointSSDHead  # noqa: F401

    __all__.append('JointSSDHead')
