"""Derive the config of one stage from the config of the trial."""

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch
from mmengine.config import Config, ConfigDict

from tjls_mm.active.adopt import one_size
from tjls_mm.active.batches import Batches, plan_batches
from tjls_mm.active.learner import Learner
from tjls_mm.active.schedule import fill_schedule
from tjls_mm.active.settings import Method, Settings
from tjls_mm.errors import InputError
from tjls_mm.models.joint_parts import is_classifier, joint_place
from tjls_mm.outputs import Needs
from tjls_mm.randomness import derive_seed
from tjls_mm.stage_folder import StageFolder

LEAST_HELD_OUT = 8
"""Labelled images that the discriminator is measured on, where there are enough."""


class StageConfig(Config):
    """A config whose text is formatted once: a Runner asks for it four times."""

    @property
    def pretty_text(self) -> str:
        """See MMEngine's Config."""
        content = repr(self.to_dict())
        if content not in _TEXTS:
            _TEXTS.clear()
            _TEXTS[content] = super().pretty_text
        return _TEXTS[content]


_TEXTS: dict[str, str] = {}


@dataclass(frozen=True)
class StageInputs:
    """What a stage is run on: its number from 0, its folder, how many images, the
    list of test images, the number of processes, and files of answers of people.
    """

    number: int
    folder: StageFolder
    n_labelled: int
    n_pool: int
    test_list: Path
    world_size: int = 1
    answer_files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class StageDeriver:
    """Derives configs of stages from the config of a trial, which is never changed,
    its image source, its sections, its learner and what its query strategy needs.
    """

    cfg: Config
    source: object
    settings: Settings
    method: Method
    learner: Learner
    needs: Needs

    def batches(self, world_size: int) -> Batches:
        """How images make up iterations."""
        return plan_batches(self.cfg, self.method, self.learner.uses_pool, world_size)

    def bank_size(self, world_size: int) -> int:
        """Reference images that the bottleneck needs, 0 if none."""
        if not self.learner.has_bank:
            return 0
        batches = self.batches(world_size)
        bottleneck = _bottleneck(self._model(batches))
        gathered = batches.total if bottleneck.get('gather') else batches.per_process
        return (bottleneck.get('batch_size') or gathered) - 1

    def held_out_count(self, n_labelled: int) -> int:
        """Labelled images that train the task only."""
        if not self.learner.uses_pool or not self.method.holdout:
            return 0
        count = round(self.method.holdout * n_labelled)
        return max(count, min(LEAST_HELD_OUT, n_labelled // 5))

    def scores_pool(self, stage: StageInputs) -> bool:
        """Whether anything is asked of the pool at the end of a stage.

        After the last, where nobody chooses, only for a record of the discriminator,
        or where outputs are kept.
        """
        wanted = self.needs.pool or self.needs.gathered
        if stage.number == self.settings.stages - 1 and not self.settings.keep_outputs:
            wanted = ()
        return bool(stage.n_pool and (wanted or 'logit' in self.learner.provides))

    def gather_seed(self, number: int) -> int:
        """Seed of what is random in gathering a stage's outputs."""
        return derive_seed(self.cfg.randomness.seed, number, 'gather')

    def derive(self, stage: StageInputs) -> Config:
        """Config of one stage, runnable by the tools of mmdet and mmpretrain.

        Args:
            stage: What it is run on.

        Returns:
            A new config: lists, work dir, names, seeds, loop, sampler and hooks of
            the stage filled in, epochs turned into iterations.

        Raises:
            InputError: If the config cannot be run.
        """
        # A name of its own: the Runner dumps its config under it, and must not write
        # over the stage's config.py.
        cfg = StageConfig(copy.deepcopy(self.cfg.to_dict()), 'derived', 'as_run.py')
        # Variables of the config files that the parts below hold already: MMEngine
        # formats the whole config several times per Runner.
        for name in ('train_pipeline', 'test_pipeline', 'val_pipeline'):
            cfg.pop(name, None)
        seed = cfg.randomness.seed
        batches = self.batches(stage.world_size)
        _name_stage(cfg, stage)
        cfg.model = self._model(batches)
        self._fill_data(cfg, stage, batches, seed)
        bar = self.settings.console == 'summary'
        fill_schedule(cfg, batches, stage.n_labelled, seed, stage.number, bar)
        self._fill_hooks(cfg, stage)
        cfg.train_cfg.setdefault('val_interval', None)
        if stage.world_size > 1 and not torch.cuda.is_available():
            # MMEngine names a device for the wrapper, which a CPU model refuses.
            cfg.model_wrapper_cfg = dict(
                type='MMDistributedDataParallel',
                device_ids=None,
                broadcast_buffers=False,
                find_unused_parameters=True,
            )
        return cfg

    def volume(self, derived: Config, world_size: int) -> dict:
        """How much a derived config trains, for the record."""
        batches = self.batches(world_size)
        iterations = derived.train_cfg.max_iters
        steps = iterations // batches.turns
        return dict(
            iterations=iterations,
            task_updates=steps // batches.accumulative_counts,
            labelled_exposures=steps * batches.labelled * batches.processes,
            image_passes=iterations * batches.total,
            processes=world_size,
        )

    def _model(self, batches: Batches) -> ConfigDict:
        model = ConfigDict(copy.deepcopy(self.learner.config))
        bottleneck = _bottleneck(model)
        if not bottleneck:
            return model
        if batches.share and batches.processes > 1:
            # Shared batches are one experiment: attention spans all of it.
            bottleneck.setdefault('gather', True)
        total = batches.total if bottleneck.get('gather') else batches.per_process
        if bottleneck.get('tokens') == 'channels':
            self._check_sizes(model)
            if bottleneck.get('eval_context') == 'batch':
                raise InputError(
                    "tokens='channels' with eval_context='batch' cannot evaluate: "
                    'the last batch of a data set is seldom full.'
                )
            given = bottleneck.setdefault('batch_size', total)
            if given != total:
                raise InputError(
                    f"A bottleneck with tokens='channels' has weights for {given} "
                    'batch slots (method.bottleneck.batch_size), but its batches hold '
                    f'{total} images, labelled and pool together: remove batch_size '
                    'from the bottleneck, or change train_dataloader.batch_size.'
                )
        return model

    def _check_sizes(self, model: ConfigDict) -> None:
        """Tokens that are channels of a location need one location of all images."""
        if is_classifier(model):
            return
        for name in ('train_dataloader', 'val_dataloader'):
            if not one_size((self.cfg[name].dataset or {}).get('pipeline') or ()):
                raise InputError(
                    f"tokens='channels' (method.bottleneck): {name}.dataset.pipeline "
                    'leaves images of several sizes: write Resize with '
                    "keep_ratio=False, or tokens='images'."
                )

    def _fill_data(
        self, cfg: Config, stage: StageInputs, batches: Batches, seed: int
    ) -> None:
        source, method, folder = self.source, self.method, stage.folder
        loader = cfg.train_dataloader
        own = dict(loader.get('dataset') or {})
        joint = dict(
            type='tjls_mm.JointDataset',
            labelled={**source.labelled_dataset(_path(folder.labelled)), **own},
        )
        if stage.answer_files:
            joint['labelled']['answer_files'] = [*map(_path, stage.answer_files)]
        if self.learner.uses_pool:
            joint['pool'] = {**source.pool_dataset(_path(folder.pool)), **own}
            if 'pipeline' in own:
                joint['pool']['pipeline'] = source.pool_pipeline(own['pipeline'])
            if self.held_out_count(stage.n_labelled):
                joint['held_out'] = _path(folder.held_out)
        loader.dataset = ConfigDict(joint)
        loader.batch_size = batches.labelled
        loader.sampler = dict(type='DefaultSampler', shuffle=True)
        names = 'composition', 'update', 'pool_ratio', 'redraw_pool'
        loader.batch_sampler = dict(
            type='tjls_mm.JointBatchSampler',
            **{name: getattr(method, name) for name in names},
            accumulative_counts=batches.accumulative_counts,
            seed=seed,
            stage=stage.number,
        )
        val = cfg.val_dataloader
        seen = dict(val.get('dataset') or {})
        test = {
            **source.labelled_dataset(_path(stage.test_list)),
            'test_mode': True,
            **seen,
        }
        for name in ('val', 'test'):
            given = cfg.get(f'{name}_dataloader') or val
            given = {'sampler': dict(type='DefaultSampler', shuffle=False), **given}
            dataset = {**test, **(given.get('dataset') or {})}
            cfg[f'{name}_dataloader'] = ConfigDict({**given, 'dataset': dataset})
            if cfg.get(f'{name}_cfg') is None:
                cfg[f'{name}_cfg'] = dict(type=f'{name.capitalize()}Loop')
            if cfg.get(f'{name}_evaluator') is None:
                cfg[f'{name}_evaluator'] = copy.deepcopy(cfg.val_evaluator)
        pool = {**source.pool_dataset(_path(folder.pool)), 'test_mode': True, **seen}
        if 'pipeline' in seen:
            pool['pipeline'] = source.score_pipeline(seen['pipeline'])
        cfg.score_dataloader = {
            'batch_size': val.get('batch_size', 1),
            'num_workers': val.get('num_workers', 0),
            'dataset': pool,
            **(self.cfg.get('score_dataloader') or {}),
        }

    def _fill_hooks(self, cfg: Config, stage: StageInputs) -> None:
        hooks = cfg.setdefault('default_hooks', ConfigDict())
        checkpoint = hooks.get('checkpoint') or {}
        if not str(checkpoint.get('type')).endswith('StageCheckpointHook'):
            hooks.checkpoint = dict(type='tjls_mm.StageCheckpointHook')
        # A stage is iterations, so its evaluation is logged at an iteration.
        logger = hooks.get('logger') or dict(type='LoggerHook')
        hooks.logger = {**logger, 'log_metric_by_epoch': False}
        processor = cfg.get('log_processor') or dict(type='LogProcessor')
        cfg.log_processor = {**processor, 'by_epoch': False}
        # Task and sampler updates reach different parameters.
        cfg.find_unused_parameters = True
        own = []
        if self.learner.uses_pool:
            # Batches of one kind take turns themselves: each serves the losses it can.
            pure = self.method.composition == 'pure'
            update = 'joint' if pure else self.method.update
            own.append(dict(type='tjls_mm.AlternatingUpdateHook', update=update))
        if self.learner.has_bank:
            bank = _path(stage.folder.bank)
            own.append(dict(type='tjls_mm.ContextBankHook', list_file=bank))
        if self.scores_pool(stage):
            hook = dict(
                type='tjls_mm.PoolScoringHook',
                lists=_path(stage.folder.path),
                needs=dataclasses.asdict(self.needs),
                seed=self.gather_seed(stage.number),
            )
            own.append(hook)
        cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), *own]


def _bottleneck(model: ConfigDict) -> ConfigDict:
    return joint_place(model).get('bottleneck') or ConfigDict()


def _path(path: Path) -> str:
    return str(path.absolute())


def _name_stage(cfg: Config, stage: StageInputs) -> None:
    # Loggers and visualizers are kept by name for as long as the process lives:
    # one of the same name would write into the folder of the first.
    name = _path(stage.folder.path)
    cfg.work_dir = str(stage.folder.path)
    cfg.experiment_name = name
    if cfg.get('visualizer') is not None:
        cfg.visualizer.name = name
    cfg.randomness.seed = derive_seed(cfg.randomness.seed, stage.number, 'weights')
    # mmdet's and mmpretrain's own tools import their models before they read a config.
    imports = cfg.get('custom_imports') or dict(allow_failed_imports=False)
    names = dict.fromkeys(['tjls_mm.compat', *imports.get('imports', [])])
    cfg.custom_imports = {**imports, 'imports': [*names, 'tjls_mm.models']}


def derive_evaluation_config(cfg: Config) -> Config:
    """The same stage without training: what runs from its weights."""
    cfg = copy.deepcopy(cfg)
    for name in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[name] = None
    # Hooks are of training: the weights are averaged, and there is no loop to ask.
    cfg.custom_hooks = []
    for name, hook in cfg.default_hooks.items():
        if hook and 'EMAHook' in str(hook.get('type')):
            cfg.default_hooks[name] = None
    cfg.auto_scale_lr = None
    return cfg


def derive_standalone_config(cfg: Config) -> Config:
    """The stage config as saved for mmdet's and mmpretrain's own tools.

    Its work dir is its own: training it again must not write over the stage.
    """
    cfg = copy.deepcopy(cfg)
    cfg.work_dir = str(Path(cfg.work_dir) / 'rerun')
    return cfg
