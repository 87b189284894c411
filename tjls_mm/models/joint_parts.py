"""Add what trains beside the task to the config of a plain learner."""

import copy
from collections.abc import Mapping

from tjls_mm.errors import InputError
from tjls_mm.registry import type_name

# Heads of classifiers to their jointly trained counterparts.
JOINT_HEADS = dict(LinearClsHead='tjls_mm.JointClsHead')


def is_classifier(model: Mapping) -> bool:
    """Whether the config of a model is one of mmpretrain's classifiers."""
    return 'head' in model and 'bbox_head' not in model and 'roi_head' not in model


def joint_place(model: dict) -> dict:
    """The part of a joint learner's config that has ``bottleneck`` and ``branches``."""
    return (model.get('head') or {}) if is_classifier(model) else model


def add_joint_parts(
    model: dict,
    bottleneck: dict | None,
    branches: Mapping[str, dict | None],
    vector: dict | None = None,
) -> dict:
    """Config of a joint learner: a new one, from that of a detector or classifier.

    A branch that is None is left out. A head that cannot be trained jointly is an
    InputError where there is something to add.
    """
    model = copy.deepcopy(model)
    branches = {name: cfg for name, cfg in branches.items() if cfg is not None}
    if not bottleneck and not branches:
        return model
    parts = copy.deepcopy({'bottleneck': bottleneck, 'branches': branches})
    if not is_classifier(model):
        kind = model.get('type')
        model.update(type='tjls_mm.JointDetector', detector=kind, **parts)
        if vector:
            model['vector'] = copy.deepcopy(vector)
        return model
    head = model['head'] or {}
    kind = type_name(head)
    if kind not in JOINT_HEADS:
        raise InputError(
            f'model.head.type={head.get("type")!r} cannot be trained jointly: '
            f'expected one of {", ".join(JOINT_HEADS)}, or a method without '
            'bottleneck and branches, such as _base_/methods/random.py.'
        )
    if vector:
        raise InputError(
            f'method.vector={vector!r} is for detectors: a classifier has pooled '
            'features. Remove it.'
        )
    head.update(type=JOINT_HEADS[kind], **parts)
    return model
