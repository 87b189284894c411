"""Derive the config of one stage from the config of the trial."""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from tjls_mm.errors import InputError
from tjls_mm.randomness import derive_seed
from tjls_mm.registry import QUERIES

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


@dataclass(frozen=True)
class StageInputs:
    """What a stage is run on.

    Attributes:
        number: From 0.
        folder: Its work dir; holds the lists.
        n_labelled: Labelled images.
        n_pool: Pool images.
        test_list: List file of the test images.
        world_size: Number of processes.
    """

    number: int
    folder: Path
    n_labelled: int
    n_pool: int
    test_list: Path
    world_size: int = 1

    def list_file(self, name: str) -> str:
        """Path of ``labelled.txt``, ``pool.txt`` or ``bank.txt``."""
        return str((self.folder / f'{name}.txt').absolute())


@dataclass(frozen=True)
class Batches:
    """How images make up iterations.

    Attributes:
        per_process: Images per iteration and process.
        total: Images per iteration, all processes together.
        labelled: Labelled images of a task iteration, all processes together.
        turns: Iterations per task iteration.
        accumulative_counts: Iterations per optimiser step.
        share: Whether processes share the total that the config names.
        scale: Whether MMEngine scales the learning rate to the total.
    """

    per_process: int
    total: int
    labelled: int
    turns: int
    accumulative_counts: int
    share: bool
    scale: bool

    def iterations(self, epochs: float, n_labelled: int) -> int:
        """Iterations in which the task sees every labelled image so often."""
        return round(epochs * n_labelled / self.labelled * self.turns)

    def describe(self, world_size: int) -> str:
        """One line for the log."""
        rate = 'scaled to it' if self.scale else 'as configured'
        if world_size == 1:
            return f'batch of {self.total} images, learning rate {rate}'
        if self.share:
            return (
                f'{world_size} processes share the batch of {self.total} images: '
                f'{self.per_process} each, learning rate as configured'
            )
        return (
            f'{world_size} processes with {self.per_process} images each make a '
            f'batch of {self.total}, learning rate {rate}'
        )


def find_configs(cfg, key: str) -> list:
    """Values of a key anywhere in a config, None left out."""
    found = []
    if isinstance(cfg, dict):
        if cfg.get(key) is not None:
            found.append(cfg[key])
        for value in cfg.values():
            found += find_configs(value, key)
    elif isinstance(cfg, (list, tuple)):
        for value in cfg:
            found += find_configs(value, key)
    return found


def has_discriminator(cfg: Config) -> bool:
    """Whether the learner is trained jointly with a discriminator."""
    return bool(find_configs(cfg.model, 'discriminator'))


def plan_batches(cfg: Config, world_size: int) -> Batches:
    """Split the batch over processes.

    ``auto_scale_lr.base_batch_size`` names the total of the experiment. With
    ``auto_scale_lr.enable`` every process takes ``train_dataloader.batch_size``
    and MMEngine scales the learning rate; otherwise the processes share the total.

    Args:
        cfg: Config of the trial.
        world_size: Number of processes.

    Raises:
        InputError: If the batch cannot be split.
    """
    size = cfg.train_dataloader.batch_size
    joint = cfg.active_learning.get('joint', {})
    composition = joint.get('composition', 'mixed')
    mixed = has_discriminator(cfg) and composition == 'mixed'
    scale = cfg.get('auto_scale_lr') or {}
    share = world_size > 1 and not scale.get('enable') and 'base_batch_size' in scale
    if share:
        total = scale['base_batch_size']
        if size not in (total, total // world_size):
            raise InputError(
                f'{world_size} processes share the batch of {total} images that '
                'auto_scale_lr.base_batch_size names, but '
                f'train_dataloader.batch_size is {size}: set both to one number.'
            )
        if total % world_size:
            raise InputError(
                f'{world_size} processes cannot share a batch of {total} images '
                '(auto_scale_lr.base_batch_size). Use a number of processes that '
                'divides it, or auto_scale_lr.enable=True to let every process '
                f'take {size} images and to scale the learning rate.'
            )
        size = total // world_size
    if mixed and size % 2:
        raise InputError(
            f'A mixed batch is half labelled, half pool, but each process has '
            f'{size} images: make train_dataloader.batch_size even'
            + (f', or use fewer than {world_size} processes.' if share else '.')
        )
    if not has_discriminator(cfg):
        turns, labelled = 1, size
    elif mixed:
        turns = 2 if joint.get('update', 'joint') == 'alternate' else 1
        labelled = size // 2
    else:
        turns, labelled = 2, size
    return Batches(
        per_process=size,
        total=size * world_size,
        labelled=labelled * world_size,
        turns=turns,
        accumulative_counts=cfg.optim_wrapper.get('accumulative_counts', 1),
        share=share,
        scale=_scales_rate(cfg, size * world_size),
    )


def _scales_rate(cfg: Config, total: int) -> bool:
    scale = cfg.get('auto_scale_lr') or {}
    if not scale.get('enable') or scale.get('base_batch_size') in (None, total):
        return False
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    if any('OneCycle' in s.type for s in schedulers):
        raise InputError(
            'auto_scale_lr.enable cannot scale OneCycleLR, whose eta_max is the '
            'rate itself: set eta_max for the larger batch and '
            f'auto_scale_lr.base_batch_size={total}.'
        )
    return True


def derive_stage_config(cfg: Config, source, stage: StageInputs) -> Config:
    """Config of one stage, runnable by the tools of mmdet and mmpretrain.

    Args:
        cfg: Config of the trial; not changed.
        source: Its image source.
        stage: What the stage is run on.

    Returns:
        A new config: lists, work dir, names and seeds of the stage filled in,
        epochs turned into iterations.

    Raises:
        InputError: If the config cannot be run.
    """
    # A name of its own: the Runner dumps its config under it, and must not write
    # over the stage's config.py.
    cfg = Config(copy.deepcopy(cfg.to_dict()), 'derived', 'as_run.py')
    # Variables of the config files that the parts below hold already: MMEngine
    # formats the whole config several times per Runner.
    for name in [key for key in cfg if key.endswith('_pipeline')]:
        cfg.pop(name)
    seed = cfg.randomness.seed
    batches = plan_batches(cfg, stage.world_size)
    _name_stage(cfg, stage)
    _fill_data(cfg, source, stage, batches, seed)
    _fill_bottleneck(cfg, stage.world_size, batches)
    _fill_schedule(cfg, stage, batches, seed)
    _fill_hooks(cfg, stage, seed)
    if stage.world_size > 1 and not torch.cuda.is_available():
        # MMEngine names a device for the wrapper, which a CPU model refuses.
        cfg.model_wrapper_cfg = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=True,
        )
    return cfg


def _name_stage(cfg: Config, stage: StageInputs) -> None:
    # Loggers and visualizers are kept by name for as long as the process lives:
    # one of the same name would write into the folder of the first.
    name = str(stage.folder.absolute())
    cfg.work_dir = str(stage.folder)
    cfg.experiment_name = name
    if cfg.get('visualizer') is not None:
        cfg.visualizer.name = name
    cfg.randomness.seed = derive_seed(cfg.randomness.seed, stage.number, 'weights')


def _fill_data(
    cfg: Config, source, stage: StageInputs, batches: Batches, seed: int
) -> None:
    loader = cfg.train_dataloader
    joint = cfg.active_learning.get('joint', {})
    parts = loader.dataset
    labelled = source.labelled_dataset(stage.list_file('labelled'))
    parts.labelled = ConfigDict({**labelled, **parts.labelled})
    if has_discriminator(cfg):
        pool = source.pool_dataset(stage.list_file('pool'))
        parts.pool = ConfigDict({**pool, **parts.pool})
    else:
        parts.pool = None
    loader.batch_size = batches.per_process
    loader.sampler = dict(type='DefaultSampler', shuffle=True)
    loader.batch_sampler = dict(
        loader.get('batch_sampler') or {'type': 'tjls_mm.JointBatchSampler'},
        **joint,
        accumulative_counts=batches.accumulative_counts,
        seed=seed,
        stage=stage.number,
    )
    test = source.labelled_dataset(str(stage.test_list.absolute()))
    for name in ('val_dataloader', 'test_dataloader'):
        if cfg.get(name) is not None:
            dataset = {**test, 'test_mode': True, **cfg[name].dataset}
            cfg[name].dataset = ConfigDict(dataset)
    pool = source.pool_dataset(stage.list_file('pool'))
    score = cfg.score_dataloader
    score.dataset = ConfigDict({**pool, 'test_mode': True, **score.dataset})


def _fill_bottleneck(cfg: Config, world_size: int, batches: Batches) -> None:
    for bottleneck in find_configs(cfg.model, 'bottleneck'):
        if batches.share and world_size > 1:
            # Shared batches are one experiment: attention spans all of it.
            bottleneck.setdefault('gather', True)
        total = batches.total if bottleneck.get('gather') else batches.per_process
        if bottleneck.get('tokens') == 'channels':
            if bottleneck.get('eval_context') == 'batch':
                raise InputError(
                    "tokens='channels' with eval_context='batch' cannot evaluate: "
                    'the last batch of a data set is seldom full.'
                )
            given = bottleneck.setdefault('batch_size', total)
            if given != total:
                raise InputError(
                    f"A bottleneck with tokens='channels' has weights for "
                    f'{given} batch slots (batch_size), but its batches hold '
                    f'{total} images: remove batch_size from the bottleneck, or '
                    f'make train_dataloader.batch_size {given}.'
                )


def bank_size(cfg: Config) -> int:
    """Reference images that the bottlenecks of a stage config need, 0 if none."""
    sizes = []
    for bottleneck in find_configs(cfg.model, 'bottleneck'):
        if bottleneck.get('eval_context', 'bank') == 'bank':
            sampler = cfg.train_dataloader
            default = sampler.batch_size
            if bottleneck.get('gather'):
                default = cfg.active_learning.total_batch
            sizes.append(bottleneck.get('batch_size') or default)
    return max(sizes) - 1 if sizes else 0


def _fill_schedule(
    cfg: Config, stage: StageInputs, batches: Batches, seed: int
) -> None:
    train = cfg.train_cfg
    epochs = train.pop('max_epochs', None)
    if (epochs is None) == (train.get('max_iters') is None):
        raise InputError(
            'train_cfg needs max_epochs (passes of the task over the labelled '
            'images) or max_iters, and not both.'
        )
    round_to = batches.turns * batches.accumulative_counts
    if epochs is not None:
        iterations = batches.iterations(epochs, stage.n_labelled)
        train.max_iters = max(1, math.ceil(iterations / round_to)) * round_to
    if train.get('val_interval') and epochs is not None:
        interval = batches.iterations(train.val_interval, stage.n_labelled)
        train.val_interval = max(1, interval)
    train.update(seed=seed, stage=stage.number)
    schedulers = cfg.get('param_scheduler') or []
    if isinstance(schedulers, dict):
        schedulers = [schedulers]
    cfg.param_scheduler = [
        _scheduler_in_iterations(s, batches, stage.n_labelled) for s in schedulers
    ]
    for scheduler in cfg.param_scheduler:
        _fit_one_cycle(scheduler, train.max_iters, round_to)
    steps = train.max_iters // batches.turns
    cfg.active_learning.total_batch = batches.total
    cfg.active_learning.volume = dict(
        iterations=train.max_iters,
        task_updates=steps // batches.accumulative_counts,
        labelled_exposures=steps * batches.labelled,
        image_passes=train.max_iters * batches.total,
    )


def _scheduler_in_iterations(cfg, batches: Batches, n_labelled: int) -> ConfigDict:
    cfg = copy.deepcopy(cfg)
    if not cfg.get('by_epoch', True):
        return cfg
    if 'Exponential' in cfg.type or 'Plateau' in cfg.type:
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
    cfg.by_epoch = False
    cfg.pop('convert_to_iter_based', None)
    return cfg


def _fit_one_cycle(scheduler: ConfigDict, max_iters: int, round_to: int) -> None:
    """Let a cycle last as long as training, which is rounded up to whole updates."""
    if 'OneCycle' not in scheduler.type:
        return
    rounding = max_iters - scheduler.total_steps
    if 0 < rounding < round_to:
        scheduler.total_steps = max_iters
    elif rounding > 0:
        raise InputError(
            f'OneCycleLR ends after {scheduler.total_steps} of {max_iters} iterations: '
            'set its total_steps to train_cfg.max_epochs (with by_epoch=True) or '
            'max_iters.'
        )


def _fill_hooks(cfg: Config, stage: StageInputs, seed: int) -> None:
    query = QUERIES.get(cfg.active_learning.query.type)
    joint = cfg.active_learning.get('joint', {})
    # Batches of one kind take turns themselves: each serves the losses it can.
    pure = joint.get('composition') == 'pure'
    update = 'joint' if pure else joint.get('update', 'joint')
    arguments = {
        'tjls_mm.AlternatingUpdateHook': dict(update=update),
        'tjls_mm.ContextBankHook': dict(list_file=stage.list_file('bank')),
        'tjls_mm.PoolScoringHook': dict(
            labelled_list=stage.list_file('labelled'),
            outputs=query.needs if stage.n_pool else (),
            seed=seed,
            stage=stage.number,
        ),
    }
    for hook in cfg.get('custom_hooks') or []:
        hook.update(arguments.pop(hook.type, {}))
    missing = set(arguments)
    if not has_discriminator(cfg):
        missing.discard('tjls_mm.AlternatingUpdateHook')
        missing.discard('tjls_mm.ContextBankHook')
    if not query.needs:
        missing.discard('tjls_mm.PoolScoringHook')
    if missing:
        raise InputError(
            f'custom_hooks lacks {sorted(missing)}: a child config that sets '
            'custom_hooks replaces the list of its base and must name them again.'
        )


def derive_standalone_config(cfg: Config) -> Config:
    """The stage config as saved for mmdet's and mmpretrain's own tools.

    Args:
        cfg: Of ``derive_stage_config``; not changed.

    Returns:
        The same with a work dir of its own: training it again must not write
        over the stage.
    """
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(Path(cfg.work_dir) / 'rerun')
    return cfg
