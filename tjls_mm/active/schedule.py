"""Turn a schedule in epochs into iterations of a stage."""

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import PARAM_SCHEDULERS

from tjls_mm.active.batches import Batches
from tjls_mm.active.settings import is_number
from tjls_mm.errors import InputError

EPOCH_KEYS = (
    'begin',
    'end',
    'milestones',
    'T_max',
    'step_size',
    'total_steps',
    'periods',
)
"""Arguments of MMEngine's schedulers that count epochs or iterations."""

LOOPS = (None, 'EpochBasedTrainLoop', 'IterBasedTrainLoop')
"""Loop types of a config whose lengths the stage's own loop takes over."""


def fill_schedule(
    cfg: Config, batches: Batches, n_labelled: int, seed: int, stage: int, bar: bool
) -> None:
    """Fill in length and schedulers of a stage's training, in place.

    ``train_cfg`` and ``param_scheduler`` count iterations afterwards. InputError if
    the schedule cannot be run.
    """
    train = cfg.train_cfg
    kind = train.pop('type', None)
    if kind not in LOOPS:
        raise InputError(
            f'train_cfg.type={kind!r}: a stage has a training loop of its own, which '
            'resumes exactly. Remove it, and keep max_epochs or max_iters.'
        )
    train.pop('by_epoch', None)
    epochs = train.pop('max_epochs', None)
    for name, value in (('max_epochs', epochs), ('max_iters', train.get('max_iters'))):
        if value is not None and not (is_number(value) and value > 0):
            raise InputError(f'train_cfg.{name} must be above 0, got {value!r}.')
    if (epochs is None) == (train.get('max_iters') is None):
        raise InputError(
            'train_cfg needs max_epochs (passes of the task over the labelled '
            'images) or max_iters, and not both.'
        )
    if epochs is not None:
        iterations = batches.iterations(epochs, n_labelled)
        rounded = math.ceil(iterations / batches.round_to) * batches.round_to
        train.max_iters = max(batches.round_to, rounded)
    if train.get('val_interval') and epochs is not None:
        interval = batches.iterations(train.val_interval, n_labelled)
        train.val_interval = max(1, interval)
    train.update(type='tjls_mm.StageTrainLoop', seed=seed, stage=stage, bar=bar)
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    cfg.param_scheduler = [
        _in_iterations(s, batches, n_labelled, train.max_iters) for s in schedulers
    ]
    for scheduler in cfg.param_scheduler:
        _fit_one_cycle(scheduler, train.max_iters, batches.round_to)


def _in_iterations(
    cfg, batches: Batches, n_labelled: int, max_iters: int
) -> ConfigDict:
    cfg = copy.deepcopy(cfg)
    share = cfg.pop('at_most', None)
    if 'Plateau' in cfg.type:
        raise InputError(
            f'{cfg.type} follows evaluations in mid-training, and nothing may be '
            'chosen by test images: use MultiStepLR, CosineAnnealingLR or OneCycleLR.'
        )
    if not cfg.get('by_epoch', True):
        if share:
            cfg.end = max(1, min(cfg.end, round(share * max_iters)))
        return cfg
    if 'Exponential' in cfg.type:
        raise InputError(
            f'{cfg.type} cannot count epochs here, where an epoch is a pass of the '
            'task over the labelled images: set by_epoch=False, or use '
            'MultiStepLR, StepLR, CosineAnnealingLR, LinearLR, PolyLR or OneCycleLR.'
        )
    for key in EPOCH_KEYS:
        value = cfg.get(key)
        if isinstance(value, (list, tuple)):
            cfg[key] = [batches.iterations(v, n_labelled) for v in value]
        elif value is not None and value != math.inf:
            least = 1 if key in ('T_max', 'step_size', 'total_steps') else 0
            cfg[key] = max(least, batches.iterations(value, n_labelled))
    if cfg.get('end') is not None:  # a phase of no iteration cannot be built
        cfg.end = max(cfg.end, cfg.get('begin', 0) + 1)
    cfg.by_epoch = False
    cfg.pop('convert_to_iter_based', None)
    return cfg


def _fit_one_cycle(scheduler: ConfigDict, max_iters: int, round_to: int) -> None:
    """Let a cycle last as long as training, which is rounded up to whole updates."""
    if 'OneCycle' not in scheduler.type:
        return
    rounding = max_iters - scheduler.get('total_steps', 0)
    if abs(rounding) < round_to:
        scheduler.total_steps = max_iters
    elif rounding:
        how = 'ends after' if rounding > 0 else 'is cut off: it lasts'
        raise InputError(
            f'OneCycleLR {how} {scheduler.get("total_steps")} iterations where '
            f'training has {max_iters}: set its total_steps to train_cfg.max_epochs '
            '(with by_epoch=True) or max_iters.'
        )


def build_schedulers(schedulers: Sequence[Mapping]) -> None:
    """Build the schedulers of a stage on a stand-in for its optimizer.

    Raises:
        Exception: Whatever their constructors say of their arguments.
    """
    parameter = torch.nn.Parameter(torch.zeros(1))
    for scheduler in schedulers:
        optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
        PARAM_SCHEDULERS.build(dict(scheduler), default_args={'optimizer': optimizer})
