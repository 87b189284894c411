"""Turn a config of mmdet into that of a trial, and say every change."""

import copy
import math
import os.path as osp
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from mmengine.config import Config, ConfigDict

from tjls_mm.active.schedule import EPOCH_KEYS
from tjls_mm.active.settings import walk
from tjls_mm.errors import InputError
from tjls_mm.registry import IMAGE_SOURCES, build_own, type_name

Note = Callable[[str], None]

HOW_TO_WRITE = """\
data_source = dict(type='tjls_mm.CocoFiles', data_root='data/mine',
                   pool_files=['pool.json'], test_files=['test.json'])
active_learning = dict(initial=200, budget=100, stages=5)
method = dict(query=dict(type='tjls_mm.Random'))"""

TRAIN, VAL = LOADERS = 'train_dataloader', 'val_dataloader'
OF_THE_DATA = (
    *('data_root', 'dataset_type', 'test_dataloader', 'test_evaluator'),
    *('train_dataset', 'val_dataset', 'train_pipeline_stage2'),
)
"""Sections and variables that name mmdet's data, or repeat those of val."""

REMOVED = {
    'MixUp': 'it never mixes images without boxes',
    'CachedMixUp': 'it never mixes images without boxes, and keeps a history',
    'RandomCenterCropPad': 'it crops around boxes',
    'RandomShift': 'it leaves images without boxes alone',
    'CopyPaste': 'it needs masks',
    'InstaBoost': 'it needs masks',
}
"""Transforms that treat images by their boxes, to why they cannot stay."""

REFUSED = {
    'LoadProposals': 'proposals of a file',
    'LoadPanopticAnnotations': 'panoptic maps',
    'LoadTextAnnotations': 'texts',
    'LoadTrackAnnotations': 'videos',
}
"""Transforms of detectors that need more than boxes, to what they need."""

MASK_PARTS = ('mask_head', 'loss_mask', 'semantic_head', 'panoptic_head')
WRAPPERS = ('detector', 'architecture', 'teacher', 'language_model', 'text_model')
MOSAIC = ('img_scale', 'center_ratio_range', 'bbox_clip_border', 'pad_val', 'prob')
"""Arguments of Mosaic that CachedMosaic has too."""

WARM_UPS = ('LinearLR', 'ConstantLR', 'QuadraticWarmupLR')
WARM_UP = 0.1
"""A warm-up in iterations lasts at most this share of a stage."""

DEFAULT_BASE = 16
"""mmdet's ``base_batch_size`` of 8 processes with 2 images, which RTMDet inherits."""

META_KEYS = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


def is_mmdet_config(cfg: Config) -> bool:
    """Whether a config is whole and names data sets of mmdet's own."""
    sections = [*LOADERS, 'model', 'train_cfg', 'optim_wrapper']
    if not all(isinstance(cfg.get(name), Mapping) for name in sections):
        return False
    datasets = [cfg[name].get('dataset') or {} for name in LOADERS]
    return cfg.get('default_scope') == 'mmdet' and any('type' in d for d in datasets)


def adopt_config(cfg: Config) -> tuple[Config, list[str]]:
    """A trial's config from one that inherits a config of mmdet.

    Args:
        cfg: Of mmdet, with ``data_source``, ``active_learning`` and ``method``; or of
            a trial already, which is returned as it is.

    Returns:
        The config of the trial, a new one, and a line for each change.

    Raises:
        InputError: If the detector needs what a trial does not have.
    """
    if not is_mmdet_config(cfg):
        return cfg, []
    sections = ('data_source', 'active_learning', 'method')
    missing = [name for name in sections if not isinstance(cfg.get(name), Mapping)]
    if missing:
        raise InputError(
            f'{cfg.filename} is a config of mmdet without {", ".join(missing)}: '
            f'write for example\n{HOW_TO_WRITE}'
        )
    cfg, notes = copy.deepcopy(cfg), []
    source = build_own(IMAGE_SOURCES, cfg.data_source)
    _refuse_model(cfg.model)
    times = _adopt_data(cfg, notes.append)
    _adopt_hooks(cfg, notes.append)
    _adopt_pipelines(cfg, notes.append)
    _adopt_model(cfg.model, len(source.classes), notes.append)
    _adopt_schedule(cfg, times, notes.append)
    _adopt_rate(cfg, notes.append)
    _adopt_evaluation(cfg, source, notes.append)
    if (cfg.get('randomness') or {}).get('seed') is None:
        cfg.randomness = {**(cfg.get('randomness') or {}), 'seed': 0}
        notes.append('randomness: seed 0')
    return cfg, list(dict.fromkeys(notes))


def _refuse_model(model: Mapping) -> None:
    if type_name(model) == 'RPN' or any(key in model for key in WRAPPERS):
        raise InputError(
            f'model.type={model.get("type")!r} is more, or less, than a detector that '
            'learns boxes and classes: inherit the config of a plain one.'
        )
    if type_name(model.get('roi_head') or {}) == 'DynamicRoIHead':
        raise InputError(
            'model.roi_head: DynamicRoIHead has thresholds that are in no checkpoint, '
            'and a stopped stage would not go on exactly: inherit faster_rcnn.'
        )
    (model.get('roi_head') or {}).pop('mask_roi_extractor', None)
    for place, key, value in walk(model):
        if key in MASK_PARTS and value and place != 'roi_head.mask_head':
            if not place.startswith('roi_head.mask_head.'):
                raise InputError(
                    f'model.{place} learns masks, and data_source has boxes: inherit '
                    'the config of a detector of boxes.'
                )


def _adopt_data(cfg: Config, note: Note) -> int:
    """Keep the pipelines of data sets; how often one goes over its images."""
    layers = list(_layers(cfg[TRAIN].dataset))
    skipped = {key for one in layers for key in one.get('skip_type_keys') or ()}
    repeats = [one.times for one in layers if type_name(one) == 'RepeatDataset']
    for name in LOADERS:
        pipeline = _pipeline(name, cfg[name].dataset)
        if name == TRAIN:
            pipeline = [t for t in pipeline if type_name(t) not in skipped]
        cfg[name].dataset = ConfigDict(pipeline=pipeline)
        if not cfg[name].get('num_workers'):  # PyTorch refuses to keep none
            cfg[name].pop('persistent_workers', None)
    for name in OF_THE_DATA:
        cfg.pop(name, None)
    kinds = dict.fromkeys(type_name(one) for one in layers if 'type' in one)
    note(
        f'data: of data_source, not {", ".join(kinds) or "a data set of mmdet"}; '
        'images without boxes are kept'
    )
    samplers = [cfg[TRAIN].pop(key, None) for key in ('sampler', 'batch_sampler')]
    kinds = {type_name(one) for one in samplers if one} - {'DefaultSampler'}
    if kinds:
        note(f'batches: drawn by the loop, without {" and ".join(sorted(kinds))}')
    return math.prod(repeats)


def _layers(dataset: Mapping) -> Iterator[Mapping]:
    """A data set and those that it wraps, from outside."""
    yield dataset
    for one in _inner(dataset):
        yield from _layers(one)


def _inner(dataset: Mapping) -> list[Mapping]:
    one = dataset.get('dataset')
    return dataset.get('datasets') or ([one] if one else [])


def _pipeline(where: str, dataset: Mapping) -> list:
    """Transforms of a data set, from the innermost outwards."""
    pipelines = [_pipeline(where, one) for one in _inner(dataset)] or [[]]
    if any(one != pipelines[0] for one in pipelines):
        raise InputError(
            f'{where}.dataset joins data sets of different pipelines: write one, '
            f'{where}=dict(dataset=dict(_delete_=True, pipeline=[...])).'
        )
    return [*pipelines[0], *(dataset.get('pipeline') or [])]


def _adopt_hooks(cfg: Config, note: Note) -> None:
    """Translate hooks that count epochs, of which a stage has one."""
    kept = []
    for hook in cfg.get('custom_hooks') or []:
        kind = type_name(hook)
        if kind == 'PipelineSwitchHook':
            cfg[TRAIN].dataset.pipeline = hook.switch_pipeline
            note(f'hooks: {kind} removed, its pipeline trains from the start')
        elif kind == 'YOLOXModeSwitchHook':
            note(f'hooks: {kind} removed, augmentation stays and no L1 loss comes')
        elif kind == 'SetEpochInfoHook':
            note(f'hooks: {kind} removed')
        elif kind == 'SyncNormHook':
            note(f'hooks: {kind} removed, the loop shares the statistics of process 0')
        elif kind == 'MeanTeacherHook' or hook.get('begin_epoch'):
            raise InputError(
                f'custom_hooks: {kind} counts epochs or trains a second model, and a '
                'stage does neither: leave it out with custom_hooks=[...], or write '
                'begin_iter for begin_epoch.'
            )
        else:
            kept.append(hook)
    if cfg.get('custom_hooks'):
        cfg.custom_hooks = kept


def _adopt_model(model: ConfigDict, n_classes: int, note: Note) -> None:
    if (model.get('roi_head') or {}).pop('mask_head', None):
        note('model: mask_head removed, boxes are learnt')
    changed = []
    for place, part in _parts(model):
        own = place.startswith(('backbone', 'rpn_head'))
        if type(part.get('num_classes')) is int and not own:
            part.num_classes = n_classes
            changed.append(place)
        if part.get('type') in ('SyncBN', 'MMSyncBN') and not torch.cuda.is_available():
            part.type = 'BN'
            note('model: BN for SyncBN, as there is no GPU')
        if part.get('initial_epoch'):
            part.initial_epoch = 0
            note(f'model: {place}.initial_epoch=0, the final assigner from the start')
    note(f'model: {n_classes} classes ({", ".join(changed)})')
    _limit_boxes(model, n_classes, note)


def _parts(value, place: str = '') -> Iterator[tuple[str, ConfigDict]]:
    """(dotted place, dict) of a config and of the dicts in it."""
    if isinstance(value, Mapping):
        yield place, value
    items = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, part in items:
        yield from _parts(part, f'{place}.{key}' if place else str(key))


def _limit_boxes(model: ConfigDict, n_classes: int, note: Note) -> None:
    """Query detectors take the best of queries and classes, and need that many."""
    test, loss = model.get('test_cfg') or {}, model.get('bbox_head') or {}
    loss = loss.get('loss_cls') or {}
    if 'num_queries' not in model or not test.get('max_per_img'):
        return
    most = model.num_queries * (n_classes if loss.get('use_sigmoid') else 1)
    if test.max_per_img > most:
        test.max_per_img = most
        note(f'model: test_cfg.max_per_img={most}, there are no more')


def _adopt_pipelines(cfg: Config, note: Note) -> None:
    for name in LOADERS:
        cfg[name].dataset.pipeline = _mend(cfg[name].dataset.pipeline, note)
    _resize_images(cfg, note)
    for name in (VAL, 'score_dataloader'):
        size = (cfg.get(name) or {}).get('batch_size', 1)
        if size > 1 and not one_size(cfg[VAL].dataset.pipeline):
            cfg[name].batch_size = 1
            note(
                f'{name}: batch_size 1, as images of several sizes would be padded by '
                "what is in the batch; dict(type='Pad', size=...) keeps it"
            )


def _mend(pipeline: Sequence, note: Note) -> list:
    """A pipeline that treats images alike whatever boxes they have."""
    mended = []
    for transform in pipeline:
        if isinstance(transform, (list, tuple)):
            mended.append(_mend(transform, note))
            continue
        for key in ('transforms', 'policies', 'aug_space'):
            if transform.get(key) and type_name(transform) != 'Albu':
                transform[key] = _mend(transform[key], note)
        one = _mend_transform(transform, note)
        mended += [one] if one else []
    return mended


def _mend_transform(transform: ConfigDict, note: Note) -> ConfigDict | None:
    kind = type_name(transform)

    def change(why: str, **settings) -> None:
        new = {k: v for k, v in settings.items() if transform.get(k) is not v}
        if new:
            written = ', '.join(f'{key}={value}' for key, value in new.items())
            note(f'pipeline: {kind}({written}), {why}')
        transform.update(settings)

    if kind in REFUSED:
        raise InputError(
            f'The pipeline has {kind}: such a detector needs {REFUSED[kind]}, and '
            'data_source has images and boxes. Inherit the config of another one.'
        )
    if kind in REMOVED and not transform.get('test_mode'):
        note(f'pipeline: {kind} removed, {REMOVED[kind]}')
        return None
    if kind == 'MinIoURandomCrop':
        size = transform.get('min_crop_size', 0.3)
        note(f'pipeline: BoxBlindRandomCrop for {kind}, which fits boxes')
        return ConfigDict(type='tjls_mm.BoxBlindRandomCrop', min_crop_size=size)
    if kind == 'CachedMosaic':
        note(f'pipeline: Mosaic for {kind}, whose history would not resume exactly')
        settings = {key: transform[key] for key in MOSAIC if key in transform}
        return ConfigDict(type='Mosaic', **settings)
    if kind == 'RandomCrop':
        change('as it would drop images without boxes', allow_negative_crop=True)
    elif kind == 'FilterAnnotations':
        change('as it would drop images without boxes', keep_empty=False)
        transform.update(by_box=True, by_mask=False)
    elif kind == 'Albu':
        change('as it would drop images without boxes', skip_img_without_anno=False)
    elif kind == 'LoadAnnotations':
        given = [flag for flag in ('with_mask', 'with_seg') if flag in transform]
        change('boxes are learnt', **dict.fromkeys(given, False))
    return transform


def _resize_images(cfg: Config, note: Note) -> None:
    """Draw a size per image where YOLOX draws one for ten batches."""
    prep = cfg.model.get('data_preprocessor') or {}
    augments = prep.get('batch_augments') or []
    found = [one for one in augments if type_name(one) == 'BatchSyncRandomResize']
    if not found:
        return
    prep.batch_augments = [one for one in augments if one not in found] or None
    (low, high), step = found[0].random_size_range, found[0].get('size_divisor', 32)
    pipeline = cfg[TRAIN].dataset.pipeline
    places = [i for i, one in enumerate(pipeline) if type_name(one) == 'Resize']
    if places:
        pipeline[places[-1]] = ConfigDict(
            type='RandomChoiceResize',
            scales=[(side, side) for side in range(low, high + 1, step)],
            keep_ratio=pipeline[places[-1]].get('keep_ratio', False),
        )
    instead = f'each image has a size of {low} to {high}' if places else 'nothing'
    note(f'model: BatchSyncRandomResize removed, {instead}, which resumes exactly')


def one_size(pipeline: Sequence) -> bool:
    """Whether images of any shape leave a pipeline in one."""
    one = square = False
    for transform in pipeline:
        kind, scale = type_name(transform), transform.get('scale')
        if 'Resize' in kind:
            fixed = kind == 'Resize' and isinstance(scale, (list, tuple))
            square = fixed and scale[0] == scale[1]
            one = fixed and not transform.get('keep_ratio')
        elif kind == 'Pad':
            padded = transform.get('pad_to_square') and square
            one = one or bool(transform.get('size') or padded)
    return one


def _adopt_schedule(cfg: Config, times: int, note: Note) -> None:
    train, schedulers = cfg.train_cfg, cfg.get('param_scheduler') or []
    if type_name(train) in ('EpochBasedTrainLoop', 'IterBasedTrainLoop'):
        intervals = ('dynamic_intervals', 'val_interval', 'val_begin')
        for key in ('type', '_scope_', *intervals):
            train.pop(key, None)
    schedulers = [schedulers] if isinstance(schedulers, Mapping) else schedulers
    if 'max_epochs' in train:
        if times > 1:
            note(f'train_cfg: epochs times {times}, for RepeatDataset(times={times})')
        _stretch(train, schedulers, times, note)
        passes = f'{train.max_epochs} passes over the labelled images'
        note(f'train_cfg: a stage is {passes}, and evaluated at its end')
    for one in schedulers:
        warms_up = type_name(one) in WARM_UPS and not one.get('by_epoch', True)
        if warms_up and 'end' in one and 'max_epochs' in train:
            one.at_most = WARM_UP
            length = f'{one.end} iterations, at most {WARM_UP:.0%} of a stage'
            note(f'param_scheduler: {type_name(one)} of {length}')
        if one.get('eta_min') and 'Cosine' in type_name(one):
            _relate(one, cfg.optim_wrapper.optimizer.lr, note)
    cfg.param_scheduler = schedulers


def _stretch(
    train: ConfigDict, schedulers: Sequence[ConfigDict], times: int, note: Note
) -> None:
    """Let schedules in epochs last as long as training, whose length users change."""
    ours = [one for one in schedulers if one.get('by_epoch', True)]
    ends = [one.get('end') or math.inf for one in ours]
    length = max(ends, default=math.inf)
    if length == math.inf or all(type_name(one) in WARM_UPS for one in ours):
        length = train.max_epochs  # a schedule without an end of its own
        late = [m for one in ours for m in one.get('milestones') or () if m >= length]
        if late:
            raise InputError(
                f'param_scheduler: milestones {late} lie after train_cfg.max_epochs='
                f'{length}. Say for how many epochs they were written, e.g. '
                '--cfg-options param_scheduler.1.end=300: they are scaled then.'
            )
    elif length != train.max_epochs:
        epochs = f'{length} epochs scaled to the {train.max_epochs} of train_cfg'
        note(f'param_scheduler: {epochs}')
    train.max_epochs *= times
    for one in ours:
        for key in EPOCH_KEYS:
            value, factor = one.get(key), train.max_epochs / length
            if isinstance(value, (list, tuple)):
                one[key] = [factor * epoch for epoch in value]
            elif value is not None:
                one[key] = factor * value


def _relate(scheduler: ConfigDict, rate: float, note: Note) -> None:
    """Name the lowest rate as a share of the highest, which may be scaled."""
    lowest = scheduler.pop('eta_min')
    scheduler.eta_min_ratio = lowest / rate if lowest < rate else 0.05
    if lowest >= rate:
        note(
            f'param_scheduler: {type_name(scheduler)} falls to 5 % of the rate, as '
            f'eta_min={lowest} is not below {rate}'
        )


def _adopt_rate(cfg: Config, note: Note) -> None:
    """Learning rates of mmdet's configs belong to a number of images an update."""
    base = (cfg.get('auto_scale_lr') or {}).get('base_batch_size')
    if not base:
        return
    # Of configs, not of the checkpoints that they name.
    named = re.findall(r'_(\d+)xb(\d+)[-_.][^\'"\s]*\.py\b', cfg.text)
    if base == DEFAULT_BASE and named:
        base = math.prod(map(int, named[-1]))
    # MMEngine scales by the images of an iteration, not by those of an update.
    count = cfg.optim_wrapper.get('accumulative_counts', 1)
    of_an_iteration = base / count if base % count else base // count
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=of_an_iteration)
    size = cfg[TRAIN].get('batch_size', 1) * count
    rate = cfg.optim_wrapper.optimizer.get('lr')
    if rate and size != base:
        note(
            f'optim_wrapper: lr {rate:g} is for {base} labelled images an update, '
            f'{rate * size / base:.3g} for the {size} of a process; '
            'auto_scale_lr=None keeps it'
        )


def _adopt_evaluation(cfg: Config, source, note: Note) -> None:
    is_coco = hasattr(source, 'test_files')
    given = cfg.get('val_evaluator') or []
    given = [given] if isinstance(given, Mapping) else given
    default = dict(type='VOCMetric', metric='mAP', eval_mode='11points')
    kept = [one for one in given if _fits(one, is_coco, default)]
    if is_coco:
        default = dict(type='CocoMetric', metric='bbox')
    found = [ConfigDict(one) for one in kept or [default]]
    for one in found:
        if type_name(one) == 'CocoMetric':
            one.metric = 'bbox'
            one.ann_file = _ann_file(source) if is_coco else None
            if one.ann_file is None:
                _pack_instances(cfg[VAL].dataset.pipeline)
    note(f'evaluation: {", ".join(map(type_name, found))} on the test images')
    cfg.val_evaluator = found[0] if len(found) == 1 else found


def _fits(evaluator: Mapping, is_coco: bool, of_mmdet: dict) -> bool:
    """Whether a metric can stay: mmdet's configs name files and metrics of theirs."""
    kind = type_name(evaluator)
    if kind == 'CocoMetric':
        return is_coco or evaluator.get('ann_file', '') is None
    if kind == 'VOCMetric':
        # MMEngine marks what it inherits of another library by '_scope_'.
        own = {k: v for k, v in evaluator.items() if k != '_scope_'}
        return not is_coco or own != of_mmdet
    return 'ann_file' not in evaluator


def _ann_file(source) -> str | None:
    """The one file of test images, where CocoMetric agrees with it on classes."""
    path = osp.join(source.data_root, source.test_files[0])
    return None if any(source.ann_file_problems('val', path)) else path


def _pack_instances(pipeline: Sequence[ConfigDict]) -> None:
    """CocoMetric without a file takes boxes from the samples."""
    for transform in pipeline:
        if type_name(transform) == 'PackDetInputs':
            keys = transform.get('meta_keys') or META_KEYS
            transform.meta_keys = tuple(dict.fromkeys([*keys, 'instances']))
