"""What a trial is told: typed settings with one owner per default."""

import dataclasses
import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mmengine.config import Config

from tjls_mm.errors import InputError, raise_first

OLD_KEYS = {
    'active_learning.query': 'method.query',
    'active_learning.joint': 'method (composition, update, pool_ratio, redraw_pool)',
    'model.bbox_head.discriminator': 'method.branches.discriminator',
    'model.bbox_head.bottleneck': 'method.bottleneck',
    'model.head.discriminator': 'method.branches.discriminator',
    'model.head.bottleneck': 'method.bottleneck',
    'train_dataloader.dataset.labelled': 'train_dataloader.dataset, once for both',
    'train_dataloader.dataset.pool': 'train_dataloader.dataset, once for both',
    'score_dataloader.dataset': 'val_dataloader.dataset, which the pool shares',
}
"""Settings of earlier versions to where they stand now."""

OLD_QUERIES = {
    'random': "dict(type='tjls_mm.Random')",
    **{
        rule: f"dict(type='tjls_mm.Discriminator', rule='{rule}')"
        for rule in ('lowest', 'margin', 'uncertain')
    },
}
INSERTED = [
    f'tjls_mm.{name}'
    for name in (
        'StageTrainLoop JointDataset JointBatchSampler JointDetector JointClsHead '
        'AlternatingUpdateHook ContextBankHook PoolScoringHook'
    ).split()
]
"""Types that the loop puts into a config by itself."""


@dataclass(frozen=True)
class Settings:
    """The section ``active_learning``: who is labelled when, and by whom.

    Attributes:
        initial: Labelled images of stage 0: a count, a fraction of all as float in
            (0, 1], a list file, the start of their ids such as ``'real/'``, or the
            config of a query strategy that chooses them, with their count or fraction
            as ``size``; it may need ``pretrained_feature``.
        stages: Number of stages.
        budget: Images to select after each stage but the last: a count, a fraction,
            or a list with one of them per selection.
        allow_short_stage: Let the last selection take what is left.
        annotator: Config of who labels the selected images.
        console: 'log', MMEngine's, or 'summary', bars and one line per stage.
        keep_outputs: Keep the pool outputs of complete stages.
        trust_checkpoints: Unpickle checkpoints that torch cannot load safely.
    """

    initial: int | float | str | Mapping
    stages: int
    budget: int | float | Sequence[int | float] = 1
    allow_short_stage: bool = False
    annotator: Mapping = field(default_factory=lambda: {'type': 'tjls_mm.Oracle'})
    console: str = 'log'
    keep_outputs: bool = False
    trust_checkpoints: bool = False


@dataclass(frozen=True)
class Method:
    """The section ``method``: how images are chosen, and what trains for that.

    Attributes:
        query: Config of the query strategy.
        features: Config of ``tjls_mm.PretrainedFeatures``, which provides
            ``pretrained_feature``, or None.
        bottleneck: Config of a batch bottleneck in the learner, or None.
        branches: Name to config of what trains beside the task.
        vector: Config of what branches of a detector see of its confidences, or None
            for ``tjls_mm.ConfidenceStats``.
        composition: 'mixed', batches half labelled and half pool, or 'pure', of one
            kind in turn. Without a branch that uses the pool all are labelled.
        update: 'joint', one update on the sum of losses, or 'alternate', the task's
            and the sampler's in turn.
        pool_ratio: Pool images that training may see, as a multiple of the labelled.
        redraw_pool: Draw them anew for every pass over them.
        holdout: Share of the labelled images that train the task only; on them the
            discriminator is measured. In [0, 1).
    """

    query: Mapping
    features: Mapping | None = None
    bottleneck: Mapping | None = None
    branches: Mapping[str, Mapping | None] = field(default_factory=dict)
    vector: Mapping | None = None
    composition: str = 'mixed'
    update: str = 'joint'
    pool_ratio: float = 1.0
    redraw_pool: bool = False
    holdout: float = 0.05


def read_settings(cfg: Config) -> tuple[Settings, Method]:
    """The settings of a trial, checked.

    Args:
        cfg: Config of the trial.

    Raises:
        InputError: If a key is unknown, old or missing, or a value no possible one.
    """
    raise_first(setting_problems(cfg))
    return _read(cfg, 'active_learning', Settings), _read(cfg, 'method', Method)


def setting_problems(cfg: Config) -> Iterator[str]:
    """Keys that are unknown, old or missing, and values that are no possible ones."""
    yield from old_keys(cfg)
    sections = []
    for name, kind in (('active_learning', Settings), ('method', Method)):
        try:
            sections.append(_read(cfg, name, kind))
        except InputError as error:
            yield str(error)
    if len(sections) == 2:
        yield from _problems(*sections)


def old_keys(cfg: Config) -> Iterator[str]:
    """Problems: settings of earlier versions, with where they stand now."""
    content = list(walk(cfg.to_dict()))
    for place, _, value in content:
        if place in OLD_KEYS and value is not None:
            new = OLD_KEYS[place]
            yield f'{place} is a setting of an earlier version: write {new}.'
    for place, key, value in content:
        if key == 'type' and value in INSERTED:
            yield (
                f'{place} is {value!r}, which the loop puts in by itself: remove it, '
                "and write the plain learner, e.g. type='SSDHead', with a method."
            )


def walk(value, where: str = '') -> Iterator[tuple[str, str, object]]:
    """(dotted place, key, value) of everything in a config that has a key."""
    items = value.items() if isinstance(value, Mapping) else ()
    if isinstance(value, (list, tuple)):
        items = enumerate(value)
    for key, part in items:
        place = f'{where}.{key}' if where else str(key)
        yield place, str(key), part
        yield from walk(part, place)


def _read(cfg: Config, section: str, cls: type):
    given = cfg.get(section)
    if not isinstance(given, Mapping):
        bases = {'active_learning': 'schedules', 'method': 'methods'}[section]
        raise InputError(
            f'{cfg.filename}: expected a section {section}=dict(...), found '
            f'{given!r}: inherit one from configs/_base_/{bases}.'
        )
    fields = {f.name: f for f in dataclasses.fields(cls)}
    for key in given:
        if key not in fields:
            raise InputError(f'{section}.{key} is unknown{nearest(key, fields)}')
    for name, one in fields.items():
        required = one.default is one.default_factory is dataclasses.MISSING
        if required and given.get(name) is None:
            raise InputError(f'{section}.{name} is missing.')
    return cls(**given)


def nearest(key: str, known) -> str:
    """'; did you mean …' or the list of what is known, for the end of a message."""
    found = difflib.get_close_matches(str(key), [str(k) for k in known], 1)
    if found:
        return f'; did you mean {found[0]!r}?'
    return f'. Known: {", ".join(map(str, known))}.'


def _problems(settings: Settings, method: Method) -> Iterator[str]:
    for name, value, choices in (
        ('active_learning.console', settings.console, ('log', 'summary')),
        ('method.composition', method.composition, ('mixed', 'pure')),
        ('method.update', method.update, ('joint', 'alternate')),
        *(
            (f'active_learning.{name}', getattr(settings, name), (True, False))
            for name in ('allow_short_stage', 'keep_outputs', 'trust_checkpoints')
        ),
        ('method.redraw_pool', method.redraw_pool, (True, False)),
    ):
        if value not in choices:
            yield f'{name} must be one of {choices}, got {value!r}.'
    for name, value in (('query', method.query), ('annotator', settings.annotator)):
        where = 'active_learning' if name == 'annotator' else 'method'
        if isinstance(value, str) and value in OLD_QUERIES:
            yield f'{where}.{name}={value!r}: write {OLD_QUERIES[value]}.'
        elif not isinstance(value, Mapping) or not isinstance(value.get('type'), str):
            yield f'{where}.{name} must be dict(type=NAME, ...), got {value!r}.'
        elif value['type'] in OLD_QUERIES and name == 'query':
            new = OLD_QUERIES[value['type']]
            yield f'method.query.type {value["type"]!r} has a new name: write {new}.'
    if type(settings.stages) is not int or settings.stages < 1:
        yield f'active_learning.stages must be 1 or more, got {settings.stages!r}.'
    for name, low, high in (('pool_ratio', 0, float('inf')), ('holdout', -1e-9, 1)):
        value = getattr(method, name)
        if not is_number(value) or not low < value < high:
            yield f'method.{name} must be in ({max(low, 0)}, {high}), got {value!r}.'
    if not isinstance(method.branches, Mapping):
        yield f'method.branches must be dict(NAME=dict(...)), got {method.branches!r}.'
    branches = {f'branches.{k}': v for k, v in method.branches.items()}
    names = 'features', 'bottleneck', 'vector'
    own = {**{name: getattr(method, name) for name in names}, **branches}
    for name, value in own.items():
        if value is not None and not (isinstance(value, Mapping) and 'type' in value):
            yield f'method.{name} must be dict(type=NAME, ...) or None, got {value!r}.'


def is_number(value) -> bool:
    """Whether a setting is one; True and False are none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)
