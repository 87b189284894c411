"""Add what trains beside the task to the config of a plain learner."""

import copy
from collections.abc import Mapping

from tjls_mm.errors import InputError
from tjls_mm.registry import type_name

# Heads of mmdet and mmpretrain to their jointly trained counterparts.
JOINT_HEADS = dict(SSDHead='tjls_mm.JointSSDHead', LinearClsHead='tjls_mm.JointClsHead')


def head_key(model: Mapping) -> str:
    """Where the config of a model has its task branch."""
    return 'bbox_head' if 'bbox_head' in model else 'head'


def add_joint_parts(
    model: dict, bottleneck: dict | None, branches: Mapping[str, dict | None]
) -> dict:
    """Config of a joint learner: a new one, from that of a detector or classifier.

    A branch that is None is left out. A head that cannot be trained jointly is an
    InputError where there is something to add.
    """
    model = copy.deepcopy(model)
    branches = {name: cfg for name, cfg in branches.items() if cfg is not None}
    if not bottleneck and not branches:
        return model
    key = head_key(model)
    head = model.get(key) or {}
    kind = type_name(head)
    if kind not in JOINT_HEADS:
        raise InputError(
            f'model.{key}.type={head.get("type")!r} cannot be trained jointly: '
            f'expected one of {", ".join(JOINT_HEADS)}, or a method without '
            'bottleneck and branches, such as _base_/methods/random.py.'
        )
    parts = copy.deepcopy({'bottleneck': bottleneck, 'branches': branches})
    head.update(type=JOINT_HEADS[kind], **parts)
    return model
