"""Checks of config, data and weights before hours of training."""

import copy
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import DefaultScope

from tjls_mm.active.plan import image_count, plan_budgets
from tjls_mm.active.stage_config import (
    StageInputs,
    bank_size,
    derive_stage_config,
    find_configs,
    has_discriminator,
)
from tjls_mm.compat import load_on_this_process
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids
from tjls_mm.query import select_random
from tjls_mm.randomness import derive_seed
from tjls_mm.registry import ANNOTATORS, IMAGE_SOURCES, MODELS, QUERIES, build_own

SETTINGS = {
    'annotator': 'where labels of selected images come from',
    'initial': 'labelled images of stage 0: count, fraction, list file, or the start '
    "of their ids such as 'real/'",
    'budget': 'images to select per stage: count, fraction or a list of them',
    'stages': 'number of stages',
    'query': 'query strategy',
    'joint': 'composition, update, pool_ratio and redraw_pool of joint batches',
    'allow_short_stage': 'let the last selection take what is left',
    'console': "'log' or 'summary'",
    'trust_checkpoints': 'unpickle checkpoints that torch cannot load safely',
}
FROM_RANDOM_WEIGHTS = (
    ' (From random weights SSD300 needs inputs of unit scale too: '
    'model.data_preprocessor.std=[58.395,57.12,57.375].)'
)
JOINT_SETTINGS = ('composition', 'update', 'pool_ratio', 'redraw_pool')


class TrialPlan:
    """What a trial will do, checked.

    Attributes:
        source: Image source.
        query: Query strategy.
        annotator: Where labels come from.
        image_ids: Labelled and pool images, sorted.
        test_ids: Test images, sorted.
        initial: image_ids labelled at stage 0, sorted.
        budgets: Images to select after each stage but the last.

    Args:
        cfg: Config of the trial.
        world_size: Number of processes.

    Raises:
        InputError: If something is missing or does not fit.
    """

    def __init__(self, cfg: Config, world_size: int = 1) -> None:
        settings = cfg.get('active_learning')
        if settings is None:
            raise InputError(
                f'{cfg.filename} has no active_learning section: inherit one of '
                "the configs of tjls_mm, e.g. _base_ = 'ssd300_voc_tjls.py'."
            )
        _check_settings(settings)
        self.seed = _seed(cfg)
        self.n_stages = settings.stages
        if cfg.get('data_source') is None:
            raise InputError(
                f'{cfg.filename} has no data_source section: images, image sets and '
                'classes.'
            )
        self.source = build_own(IMAGE_SOURCES, cfg.data_source)
        self.query = build_own(QUERIES, settings.query)
        annotator = settings.get('annotator') or dict(type='tjls_mm.Oracle')
        self.annotator = build_own(ANNOTATORS, annotator)
        self.image_ids = self.source.list_images('pool')
        self.test_ids = self.source.list_images('test')
        self._check_splits()
        self.initial = self._initial(settings.initial)
        self.budgets = plan_budgets(
            len(self.image_ids),
            len(self.initial),
            settings.get('budget', 1),
            settings.stages,
            settings.get('allow_short_stage', False),
        )
        if 'logit' in self.query.needs and not has_discriminator(cfg):
            raise InputError(
                f'The query strategy {settings.query.type!r} ranks by the '
                'discriminator, and the learner has none: set '
                f"model.{_head(cfg)}.discriminator=dict(type='tjls_mm."
                "DiscriminatorHead'), or active_learning.query=dict(type='random')."
            )
        left = len(self.image_ids) - len(self.initial) - sum(self.budgets)
        if has_discriminator(cfg) and left < 1:
            raise InputError(
                'The last stage leaves no image in the pool, and a discriminator '
                'needs labelled and pool images: plan one stage less or smaller '
                'budgets. (Training on all labels is the method of the *_full '
                'configs.)'
            )
        self._check_classes(cfg)
        _check_runnable(cfg)
        # Whatever else a stage config refuses, it refuses now.
        dry = StageInputs(
            0,
            Path(cfg.work_dir or 'work_dirs') / 'stage_00',
            len(self.initial),
            len(self.image_ids) - len(self.initial),
            Path(cfg.work_dir or 'work_dirs') / 'test.txt',
            world_size,
        )
        derived = derive_stage_config(cfg, self.source, dry)
        self.source.check_config(derived)
        size = bank_size(derived)
        if size > len(self.image_ids):
            raise InputError(
                f'The context bank needs {size} images (the batch less one), the data '
                f'set has {len(self.image_ids)}: use a smaller '
                'train_dataloader.batch_size.'
            )

    def _check_splits(self) -> None:
        if not self.image_ids or not self.test_ids:
            raise InputError(
                f'The image sets name {len(self.image_ids)} pool and '
                f'{len(self.test_ids)} test images: expected some of each.'
            )
        both = sorted(set(self.image_ids) & set(self.test_ids))
        if both:
            raise InputError(
                f'{both[0]!r} ({len(both)} such ids) is in the pool and in the test '
                'set: nothing may be chosen by test images. Mend '
                'data_source.'
            )

    def _initial(self, value) -> list[str]:
        if isinstance(value, str) and value.endswith('/'):
            return self._initial_below(value)
        if isinstance(value, str):
            listed = read_image_ids(value)
            unknown = sorted(set(listed) - set(self.image_ids))
            if unknown or not listed:
                raise InputError(
                    f'{value}: expected ids of the pool sets such as '
                    f'{self.image_ids[0]!r}, found {unknown[:3] or "none"}.'
                )
            return sorted(listed)
        count = image_count(value, len(self.image_ids), 'initial')
        if count > len(self.image_ids):
            raise InputError(
                f'active_learning.initial asks for {count} images, the data set has '
                f'{len(self.image_ids)}: 0 stages fit.'
            )
        return sorted(
            select_random(self.image_ids, count, derive_seed(self.seed, 'initial'))
        )

    def _initial_below(self, prefix: str) -> list[str]:
        found = [i for i in self.image_ids if i.startswith(prefix)]
        if not found:
            raise InputError(
                f'active_learning.initial: no image_id begins with {prefix!r}; they '
                f'look like {self.image_ids[0]!r}. (Without the slash at its end it '
                'would be a list file.)'
            )
        return found

    def _check_classes(self, cfg: Config) -> None:
        expected = len(self.source.classes)
        for number in find_configs(cfg.model, 'num_classes'):
            # A backbone without classifier has -1 or 0 of them.
            if number > 0 and number != expected:
                raise InputError(
                    f'The model has num_classes={number}, the data set has '
                    f'{expected} classes ({", ".join(self.source.classes[:5])}, …): '
                    f'set model=dict({_head(cfg)}=dict(num_classes={expected})), or '
                    'data_source.classes.'
                )
        channels = _backbone_channels(cfg, self.source.channels)
        if channels != self.source.channels:
            raise InputError(
                f'The backbone takes images of {channels} channels, the data set has '
                f'{self.source.channels}: set data_source.channels={channels}, or, '
                'where the backbone has such an argument, model=dict(backbone=dict('
                f'in_channels={self.source.channels})).'
            )

    def check_files(self, labelled: list[str]) -> None:
        """Decode every image; read the annotations of test and labelled images.

        Args:
            labelled: image_ids labelled at the stage at hand.
        """
        self.source.check_annotations(self.test_ids, 'test')
        self.source.check_annotations(labelled, 'labelled')
        self.source.check_images('pool', self.image_ids)
        self.source.check_images('test', self.test_ids)


def check_pretrained(cfg: Config) -> None:
    """Fetch pretrained weights now, into the cache that MMEngine reads.

    Args:
        cfg: Config of the trial.

    Raises:
        InputError: If they cannot be had; names the switch for random weights.
    """
    if cfg.get('load_from'):
        _check_safe(cfg, cfg.load_from, 'load_from')
    whole = {'init_cfg': cfg.model.get('init_cfg')}
    if cfg.model.get('pretrained'):  # of mmpretrain's classifiers
        whole = {'init_cfg': {'checkpoint': cfg.model.pretrained}}
    for key, part in {**cfg.model, 'pretrained': whole}.items():
        init = (part.get('init_cfg') if isinstance(part, dict) else None) or []
        for one in init if isinstance(init, (list, tuple)) else [init]:
            name = one.get('checkpoint')
            if name is None:
                continue
            _check_safe(cfg, name, f'model.{key}.init_cfg.checkpoint')
            try:
                load_on_this_process(name)
            # Every backend raises its own: URLError, HTTPError, OSError, KeyError.
            except Exception as error:
                raise InputError(
                    f'The pretrained weights {name} of model.{key} are not in the '
                    f'cache and cannot be fetched ({error}). Without network, copy '
                    'the file from elsewhere and name it with --cfg-options '
                    f'model.{key}.init_cfg.checkpoint=PATH, or start from random '
                    f'weights with --cfg-options model.{key}.init_cfg=None.'
                    + (FROM_RANDOM_WEIGHTS if 'caffe' in name else '')
                ) from None


def _backbone_channels(cfg: Config, usual: int) -> int:
    """Channels of the images that the backbone takes."""
    backbone = cfg.model.get('backbone') or {}
    if 'in_channels' in backbone:
        return backbone.in_channels
    if usual == 3:
        return 3  # what backbones take that have no such argument, nearly all of them
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        layers = MODELS.build(copy.deepcopy(backbone)).modules()
    stem = next((m for m in layers if isinstance(m, torch.nn.Conv2d)), None)
    return usual if stem is None else stem.in_channels


def _head(cfg: Config) -> str:
    """Where the model's config has its task branch."""
    return 'bbox_head' if 'bbox_head' in cfg.model else 'head'


def _check_runnable(cfg: Config) -> None:
    """Refuse what would fail after the first stage was begun."""
    for name in ('val_dataloader', 'val_cfg', 'val_evaluator', 'score_dataloader'):
        if cfg.get(name) is None:
            raise InputError(
                f'{name} is missing: every stage is evaluated and scores the pool.'
            )
    if 'Amp' in cfg.optim_wrapper.get('type', '') and get_device() == 'cpu':
        raise InputError(
            f'optim_wrapper.type={cfg.optim_wrapper.type!r} needs a GPU and there is '
            'none: --cfg-options optim_wrapper.type=OptimWrapper'
        )
    for hook in cfg.get('custom_hooks') or []:
        if 'EMAHook' in str(hook.get('type')):
            raise InputError(
                f'{hook.type} is not supported: scores and the context bank belong '
                'to the weights that are trained and saved. Remove it from '
                'custom_hooks.'
            )


def _check_safe(cfg: Config, name: str, setting: str) -> None:
    """Refuse a file that MMEngine would unpickle without saying so."""
    if '://' in name or cfg.active_learning.get('trust_checkpoints'):
        return
    try:
        torch.load(name, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise InputError(f'{setting}: {name} does not exist.') from None
    # torch.load raises whatever its zip reader or unpickler do.
    except Exception as error:
        raise InputError(
            f'{setting}: {name} holds more than tensors and plain types '
            f'({str(error).splitlines()[0][:150]}), and loading it could run code. '
            'If you trust it: --cfg-options active_learning.trust_checkpoints=True'
        ) from None


def _check_settings(settings) -> None:
    for name in settings:
        if name not in SETTINGS:
            raise InputError(
                f'active_learning.{name} is unknown. Known: {", ".join(SETTINGS)}.'
            )
    for name in ('initial', 'stages', 'query'):
        if name not in settings:
            raise InputError(f'active_learning.{name} is missing: {SETTINGS[name]}.')
    for name in settings.get('joint', {}):
        if name not in JOINT_SETTINGS:
            raise InputError(
                f'active_learning.joint.{name} is unknown. Known: '
                f'{", ".join(JOINT_SETTINGS)}.'
            )
    query = settings.query.get('type')
    if QUERIES.get(query) is None:
        known = ', '.join(sorted(QUERIES.module_dict))
        raise InputError(
            f'active_learning.query.type {query!r} is unknown. Known: {known}.'
        )


def _seed(cfg: Config) -> int:
    seed = (cfg.get('randomness') or {}).get('seed')
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise InputError(f'randomness.seed must be an integer >= 0, got {seed!r}.')
    return seed
