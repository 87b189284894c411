"""What a trial has to know of its learner, asked of the built one."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope

from tjls_mm.active.settings import Method, walk
from tjls_mm.compat import operator_problems
from tjls_mm.errors import InputError, raise_first
from tjls_mm.models import add_joint_parts, batch_bottlenecks, find_joint_learner
from tjls_mm.models.joint_parts import joint_place
from tjls_mm.outputs.readers import find_reader, no_reader
from tjls_mm.registry import MODELS


@dataclass(frozen=True)
class Learner:
    """Facts of a learner.

    Attributes:
        config: Of the model, with bottleneck and branches.
        uses_pool: Whether a branch trains on pool images.
        has_bank: Whether a bottleneck attends to a context bank.
        in_channels: Of the images that the backbone takes, or None.
        provides: Names of the pool outputs that can be had of it.
        remedies: Name of an output that cannot, to what to write to get it.
    """

    config: dict
    uses_pool: bool
    has_bank: bool
    in_channels: int | None
    provides: frozenset[str]
    remedies: Mapping[str, str]


def inspect_learner(cfg: Config, method: Method, names: tuple[str, ...]) -> Learner:
    """Build the learner once and ask it; InputError if it cannot be built.

    Args:
        cfg: Config of the trial.
        method: Its method.
        names: Pool outputs whose remedy is asked for where they cannot be had.
    """
    parts = method.bottleneck, method.branches, method.vector
    config = add_joint_parts(cfg.model, *parts)
    model = build_model(cfg, config)
    raise_first(operator_problems(model))
    _check_optimizer(cfg, model)
    joint = find_joint_learner(model)
    reader = find_reader(model)
    provides = frozenset(reader.provides(model)) if reader else frozenset()
    stem = (m for m in model.backbone.modules() if isinstance(m, torch.nn.Conv2d))
    convolution = next(stem, None) if hasattr(model, 'backbone') else None
    return Learner(
        config=config,
        uses_pool=joint is not None and joint.uses_pool,
        has_bank=bool(batch_bottlenecks(model)),
        in_channels=convolution and convolution.in_channels,
        provides=provides,
        remedies={
            name: reader.remedy(name) if reader else no_reader(model)
            for name in names
            if name not in provides
        },
    )


def _check_optimizer(cfg: Config, model: torch.nn.Module) -> None:
    wrapper = copy.deepcopy(cfg.optim_wrapper)
    if 'Amp' in str(wrapper.get('type')):  # it wants a GPU as soon as it is built
        wrapper = {k: v for k, v in wrapper.items() if k not in ('dtype', 'loss_scale')}
        wrapper['type'] = 'OptimWrapper'
    try:
        build_optim_wrapper(model, wrapper)
    # Constructors raise whatever they like.
    except Exception as error:
        raise InputError(
            f'optim_wrapper cannot be built with optimizer={wrapper.get("optimizer")}: '
            f'{type(error).__name__}: {error}. Correct its type or arguments.'
        ) from error


def build_model(cfg: Config, config: Mapping) -> torch.nn.Module:
    """The model of a config with whatever weights it is born with."""
    config = copy.deepcopy(config)
    # Its size comes from the loader, which nothing here depends on.
    bottleneck = joint_place(config).get('bottleneck') or {}
    if bottleneck.get('tokens') == 'channels':
        bottleneck.setdefault('batch_size', 2)
    if cfg.get('data_preprocessor') is not None:
        config.setdefault('data_preprocessor', cfg.data_preprocessor)
    scope = DefaultScope.overwrite_default_scope(cfg.get('default_scope'))
    with scope, torch.random.fork_rng(devices=[]):
        try:
            return MODELS.build(config)
        except InputError:
            raise
        # Constructors raise whatever they like.
        except Exception as error:
            advice = 'Correct the sections model, method.bottleneck or method.branches.'
            for place, key, value in walk(config, 'model'):
                if key == 'pretrained' and value is True:
                    part = place.removesuffix('.pretrained')
                    advice = (
                        f'{place} fetches weights by timm: without network or timm set '
                        f'it to False, and {part}.checkpoint_path to a file.'
                    )
            raise InputError(
                f'The model cannot be built: {type(error).__name__}: {error}. {advice}'
            ) from error
