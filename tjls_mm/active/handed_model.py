"""A config and weights that somebody brings: no trial, no labels, only a model."""

import collections
import copy
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import DefaultScope

from tjls_mm import __version__
from tjls_mm.active.adopt import REFUSED, one_size
from tjls_mm.active.learner import build_model
from tjls_mm.active.settings import walk
from tjls_mm.compat import operator_problems
from tjls_mm.errors import InputError, raise_first
from tjls_mm.files import file_hash
from tjls_mm.models import add_joint_parts
from tjls_mm.models.joint_parts import is_classifier
from tjls_mm.outputs.readers import find_reader, no_reader
from tjls_mm.registry import DATASETS, IMAGE_SOURCES, build_own, type_name

LOADERS = ('score_dataloader', 'test_dataloader', 'val_dataloader')
"""Where the test pipeline stands, the first that there is."""

TRUST = '--trust-checkpoint'


def read_weights(path: str | Path, trust: bool = False) -> tuple[dict, dict]:
    """State dict and ``meta`` of a checkpoint, on the CPU.

    Args:
        path: Of a file.
        trust: Whether to unpickle what holds more than tensors and plain types.

    Raises:
        InputError: If it is no such file, or its loading could run code.
    """
    try:
        content = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError:
        raise InputError(f'The checkpoint {path} does not exist.') from None
    except IsADirectoryError:
        raise InputError(f'The checkpoint {path} is a folder: name a file.') from None
    # torch.load raises whatever its zip reader or unpickler do.
    except Exception as error:
        content = _unpickle(path, trust, error)
    state = content.get('state_dict', content) if isinstance(content, dict) else {}
    if not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise InputError(f'{path} holds no weights: expected a state_dict of tensors.')
    meta = content.get('meta')
    return (
        {key.removeprefix('module.'): value for key, value in state.items()},
        meta if isinstance(meta, dict) else {},
    )


def _unpickle(path: str | Path, trust: bool, reason: Exception) -> object:
    if not trust:
        name = re.search(r'GLOBAL ([\w.]+)', str(reason))
        what = f', {name[1]} among it' if name else ''
        raise InputError(
            f'{path} cannot be loaded safely: it is damaged, or holds more than '
            f'tensors and plain types{what}, and loading it could run code. '
            "(MMEngine's checkpoints of training do; model.pth of a stage and "
            f'published weights do not.) If you know where it is from: {TRUST}'
        ) from None
    try:
        return torch.load(path, map_location='cpu', weights_only=False)
    # Unpickling raises whatever it likes.
    except Exception as error:
        raise InputError(
            f'{path} cannot be loaded ({type(error).__name__}: {error}): expected a '
            'checkpoint of PyTorch.'
        ) from None


class HandedModel:
    """What a config and a checkpoint say of a model, before it is built.

    Args:
        cfg: Of mmdet, of mmpretrain, of a trial or of a stage.
        checkpoint: File of its weights.
        trust: See ``read_weights``.

    Attributes:
        is_classifier: Whether it is one, else a detector.
        classes: Their names, in order; 'class 0' and so on where nothing names them.
        has_names: Whether something does.
        made_of: All that outputs depend on beside the images, for JSON.

    Raises:
        InputError: If a part is missing, or the checkpoint cannot be loaded.
    """

    def __init__(self, cfg: Config, checkpoint: str, trust: bool = False) -> None:
        self.cfg, self.checkpoint = cfg, checkpoint
        if not isinstance(cfg.get('model'), Mapping):
            raise InputError(
                f'{cfg.filename} has no section model=dict(...): expected a config of '
                'mmdet, of mmpretrain, of a trial or of a stage.'
            )
        method = cfg.get('method') or {}
        parts = method.get('bottleneck'), method.get('branches') or {}
        # In the config of a stage they are there already.
        is_stage = (cfg.get('score_dataloader') or {}).get('dataset') is not None
        self.config = copy.deepcopy(cfg.model)
        if not is_stage:
            self.config = add_joint_parts(cfg.model, *parts, method.get('vector'))
        self.is_classifier = is_classifier(self.config)
        self._read_loader()
        self.state, self.meta = read_weights(checkpoint, trust)
        self.classes = self._find_classes()
        self.made_of = {
            'tjls_mm': __version__,
            'weights': file_hash(checkpoint),
            'model': _plain(self.config),
            'data_preprocessor': _plain(cfg.get('data_preprocessor')),
            'dataset': _plain(self.dataset),
            'batch_size': self.batch_size,
        }
        if self.is_classifier:
            self.made_of['channels'] = self._channels()

    def _read_loader(self) -> None:
        """How images reach the model."""
        given = [self.cfg.get(name) or {} for name in LOADERS]
        found = [one for one in given if _innermost(one.get('dataset') or {})]
        if not found:
            raise InputError(
                f'{self.cfg.filename} has no test pipeline: expected '
                'test_dataloader=dict(dataset=dict(pipeline=[...])), or val_dataloader.'
            )
        loader, dataset = found[0], _innermost(found[0]['dataset'])
        keys = 'pipeline', 'decode_once', 'scale'
        self.dataset = {key: dataset[key] for key in keys if dataset.get(key)}
        pipeline = self.dataset.get('pipeline') or []
        for transform in pipeline:
            if type_name(transform) in REFUSED:
                need = REFUSED[type_name(transform)]
                raise InputError(
                    f'The test pipeline has {type_name(transform)}: such a model needs '
                    f'{need} beside the images, and there are none.'
                )
        score = self.cfg.get('score_dataloader') or {}
        size = score.get('batch_size', loader.get('batch_size', 1))
        # Images of several sizes would be padded by what is in the batch.
        is_one = 'decode_once' in self.dataset or one_size(pipeline) or _crops(pipeline)
        self.batch_size = size if is_one else 1
        workers = score.get('num_workers', loader.get('num_workers', 0))
        # Configs count on the machine that trained.
        self.num_workers = min(workers, os.cpu_count() or 1)

    def _find_classes(self) -> tuple[str, ...]:
        numbers = [
            number
            for place, key, number in walk(self.config, 'model')
            if key == 'num_classes'
            and type(number) is int
            # Backbones and proposals have numbers of their own.
            and not place.startswith(('model.backbone.', 'model.rpn_head.'))
        ]
        count = numbers[0] if numbers else None
        for names in self._class_names():
            if isinstance(names, str):
                names = [names]
            if names and count in (None, len(names)):
                self.has_names = True
                return _distinct(names)
        if count is None:
            raise InputError(
                f'{self.cfg.filename} and {self.checkpoint} do not say which classes '
                "there are: --cfg-options \"metainfo.classes=('a','b')\" does."
            )
        self.has_names = False
        return tuple(f'class {number}' for number in range(count))

    def _class_names(self) -> Iterator[Sequence[str] | None]:
        yield self._trained_on()
        yield (self.cfg.get('metainfo') or {}).get('classes')
        yield (self.cfg.get('data_source') or {}).get('classes')
        for name in LOADERS:
            dataset = _innermost((self.cfg.get(name) or {}).get('dataset') or {})
            yield (dataset.get('metainfo') or {}).get('classes')
            yield (dataset.get('source') or {}).get('classes')
            if dataset.get('type'):
                with self.scope(), DATASETS.switch_scope_and_registry(None) as scoped:
                    kind = scoped.get(dataset['type'])
                yield getattr(kind, 'METAINFO', {}).get('classes')

    def _trained_on(self) -> Sequence[str] | None:
        known = self.meta.get('dataset_meta') or self.meta
        return known.get('classes') or known.get('CLASSES')

    def scope(self):
        """Context manager in which types of the config are found."""
        scope = self.cfg.get('default_scope') or (
            'mmpretrain' if self.is_classifier else 'mmdet'
        )
        return DefaultScope.overwrite_default_scope(scope)

    def source(self, folder: str, annotated: Mapping | None = None):
        """The image source of a folder of images for this model."""
        kind = 'FolderClsImages' if self.is_classifier else 'FolderImages'
        settings = dict(data_root=folder, classes=self.classes, annotated=annotated)
        if self.is_classifier:
            settings['channels'] = self._channels()
        return build_own(IMAGE_SOURCES, {'type': kind, **settings})

    def _channels(self) -> int:
        """Of images as they are decoded; pipelines of mmpretrain do that themselves."""
        return (self.cfg.get('data_source') or {}).get('channels', 3)

    def build_dataset(self, source, list_file: str):
        """The images of a list, without annotations, as this model wants them."""
        own = {**self.dataset}
        own['pipeline'] = source.score_pipeline(own.get('pipeline'))
        own = {**source.pool_dataset(list_file), 'test_mode': True, **own}
        try:
            with self.scope():
                return DATASETS.build(own)
        except InputError:
            raise
        # Constructors raise whatever they like.
        except Exception as error:
            raise InputError(
                f'The test pipeline of {self.cfg.filename} cannot be built '
                f'({type(error).__name__}: {error}). Correct it.'
            ) from error

    def build(self) -> torch.nn.Module:
        """The model with its weights, on the device that there is.

        Raises:
            InputError: If it cannot be built, run or read, or the weights are of
                another model.
        """
        model = build_model(self.cfg, self.config)
        raise_first(operator_problems(model))
        if find_reader(model) is None:
            raise InputError(f'{self.cfg.filename}: {no_reader(model)}.')
        self._load(model)
        device = get_device()
        if device == 'cpu':
            model = revert_sync_batchnorm(model)
        return model.to(device).eval()

    def _load(self, model: torch.nn.Module) -> None:
        own = {key: tuple(value.shape) for key, value in model.state_dict().items()}
        try:
            # Modules rename keys of older versions in here.
            found = model.load_state_dict(self.state, strict=False)
            wrong = [
                *(f'{key} is missing' for key in found.missing_keys),
                *(f'{key} is not in the model' for key in found.unexpected_keys),
            ]
            wrong = [line for line in wrong if 'num_batches_tracked' not in line]
        except RuntimeError:
            wrong = [
                f'{key} is {tuple(value.shape)}, in the model {own[key]}'
                for key, value in self.state.items()
                if own.get(key, tuple(value.shape)) != tuple(value.shape)
            ] or ['its tensors do not fit']
        if wrong:
            raise InputError(
                f'{self.checkpoint} holds the weights of another model than '
                f'{self.cfg.filename}: keys that differ: {len(wrong)} (the model '
                f'has {len(own)}), the first: {wrong[0]}.{self._advice()}'
            )

    def _advice(self) -> str:
        classes = self._trained_on()
        if classes and len(classes) != len(self.classes):
            return (
                f' It was trained on {len(classes)} classes, the config has '
                f'{len(self.classes)}: set num_classes with --cfg-options, or use the '
                'config that it was trained with.'
            )
        return (
            ' Use the config that it was trained with; beside model.pth of a stage '
            'that is config.py.'
        )


def _distinct(names: Sequence) -> tuple[str, ...]:
    """Names of classes, those that several have with their numbers."""
    counts = collections.Counter(map(str, names))
    return tuple(
        f'{name} ({number})' if counts[str(name)] > 1 else str(name)
        for number, name in enumerate(names)
    )


def _innermost(dataset: Mapping) -> Mapping:
    """The data set that has the images, of one that may wrap it; or nothing."""
    while isinstance(dataset.get('dataset'), Mapping):
        dataset = {**dataset['dataset'], **_own_pipeline(dataset)}
    inner = dataset.get('datasets') or ()
    if inner:
        return _innermost({**inner[0], **_own_pipeline(dataset)})
    return dataset if dataset.get('pipeline') or dataset.get('decode_once') else {}


def _own_pipeline(dataset: Mapping) -> dict:
    return {k: dataset[k] for k in ('pipeline',) if dataset.get(k)}


def _crops(pipeline: Sequence[Mapping]) -> bool:
    """Whether a classifier's pipeline leaves images in one size."""
    for transform in pipeline:
        kind, scale = type_name(transform), transform.get('scale')
        square = kind == 'Resize' and isinstance(scale, int)
        if kind == 'CenterCrop' or square:
            return True
    return False


def _plain(value) -> object:
    """What JSON can hold of a config."""
    return json.loads(json.dumps(value, default=repr, sort_keys=True))
