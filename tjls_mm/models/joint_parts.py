"""Add what trains beside the task to the config of a plain learner."""

import copy
from collections.abc import Mapping

from tjls_mm.errors import InputError

JOINT_HEADS = {
    'SSDHead': 'tjls_mm.JointSSDHead',
    'LinearClsHead': 'tjls_mm.JointClsHead',
}
"""Heads of mmdet and mmpretrain to their jointly trained counterparts."""


def head_key(model: Mapping) -> str:
    """Where the config of a model has its task branch."""
    return 'bbox_head' if 'bbox_head' in model else 'head'


def add_joint_parts(
    model: dict, bottleneck: dict | None, branches: Mapping[str, dict | None]
) -> dict:
    """Config of a joint learner, from that of a plain one.

    Args:
        model: Config of a detector or classifier; not changed.
        bottleneck: Config of a batch bottleneck, or None.
        branches: Name to config of a ``Branch``; None leaves one out.

    Returns:
        A new config; an equal one where there is nothing to add.

    Raises:
        InputError: If the head has no jointly trained counterpart.
    """
    model = copy.deepcopy(model)
    branches = {name: cfg for name, cfg in branches.items() if cfg is not None}
    if not bottleneck and not branches:
        return model
    key = head_key(model)
    head = model.get(key) or {}
    kind = str(head.get('type', '')).split('.')[-1]
    if kind not in JOINT_HEADS:
        raise InputError(
            f'model.{key}.type={head.get("type")!r} cannot be trained jointly: '
            f'expected one of {", ".join(JOINT_HEADS)}. Use such a head, or a method '
            'without bottleneck and branches, such as _base_/methods/random.py.'
        )
    parts = copy.deepcopy({'bottleneck': bottleneck, 'branches': branches})
    head.update(type=JOINT_HEADS[kind], **parts)
    return model
