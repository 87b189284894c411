"""Sweep files: which trials to run, merged into configs of their own and checked."""

import contextlib
import copy
import difflib
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mmengine.config import Config

from tjls_mm.active.manifest import flatten_config
from tjls_mm.errors import InputError
from tjls_mm.files import write_text

SWEEP_KEYS = ('title', 'seeds', 'trials')
TRIAL_KEYS = ('config', 'options')
# A leading dot would hide the files, a leading dash reads as an option.
NAME = re.compile(r'[A-Za-z0-9_][A-Za-z0-9_.-]*')


@dataclass(frozen=True)
class Variant:
    """A row of the table.

    Attributes:
        name: Of the row, of its config file and its work dirs.
        cfg: Config of its trials, options merged.
    """

    name: str
    cfg: Config

    @cached_property
    def settings(self) -> dict[str, object]:
        """The values that decide about results."""
        return flatten_config(self.cfg)

    def config_file(self, work_dir: Path) -> Path:
        """Where the merged config is written."""
        return work_dir / f'{self.name}.py'


@dataclass(frozen=True)
class Sweep:
    """What a sweep file asks for, checked.

    Attributes:
        title: Of the table.
        seeds: Of every variant's trials.
        variants: Rows of the table, in order.
    """

    title: str
    seeds: tuple[int, ...]
    variants: tuple[Variant, ...]


def read_sweep(
    path: str | Path,
    seeds: Sequence[int] | None = None,
    cfg_options: Mapping[str, object] | None = None,
) -> Sweep:
    """Read a sweep file and the configs that it names, and check them.

    ``trials`` maps names to ``config``, a path relative to the sweep file, and
    ``options``, overrides by dotted key. ``seeds`` is [0] and ``title`` the file's
    name if not given.

    An option has to name a key that its config has. A new key is taken only in a
    section that is there, where it can be an argument left at its default
    (``model.head.bottleneck.depth``, ``randomness.deterministic``), and only if it
    does not look like a misspelt key of that section. A new section, or a new key
    beside the sections, belongs in a config file, which the sweep can name.

    Args:
        path: Of the sweep file, a text config of MMEngine.
        seeds: In place of the file's.
        cfg_options: Overrides for all trials, on top of their own.

    Raises:
        InputError: If anything is wrong; names all that is.
    """
    path = Path(path)
    content = _read_config(path).to_dict()
    _refuse_unknown(path, content, SWEEP_KEYS)
    trials = content.get('trials')
    if not isinstance(trials, dict) or not trials:
        raise InputError(
            f'{path}: trials must name at least one trial, as in '
            "trials = dict(tjls=dict(config='../vgg16_cifar100_tjls.py'))."
        )
    variants, wrong = [], {}
    for name, trial in trials.items():
        try:
            variants.append(_read_variant(path, name, trial, cfg_options or {}))
        except InputError as error:
            wrong.setdefault(str(error), []).append(repr(name))
    problems = [
        f'{path}, trial {", ".join(names)}: {problem}'
        for problem, names in wrong.items()
    ]
    try:
        given = content.get('seeds', [0]) if seeds is None else seeds
        seeds = _check_seeds(path, given)
    except InputError as error:
        problems.append(str(error))
    if problems:
        raise InputError('\n'.join(problems))
    title = content.get('title', path.stem)
    return Sweep(str(title), tuple(seeds), tuple(variants))


def _read_config(path: Path) -> Config:
    if not path.is_file():
        raise InputError(f'{path} does not exist.')
    try:
        # Modules of the trials are for the trials to import.
        return Config.fromfile(path, import_custom_modules=False)
    # A text config is Python: it raises what its lines raise.
    except Exception as error:
        raise InputError(
            f'{path} cannot be read as a config: {type(error).__name__}: {error}'
        ) from None


def _refuse_unknown(where, content: Mapping, known: Sequence[str]) -> None:
    for key in content:
        if key not in known:
            raise InputError(f'{where}: {key!r} is unknown. Known: {", ".join(known)}.')


def _check_seeds(path: Path, seeds) -> list[int]:
    seeds = list(seeds) if isinstance(seeds, (list, tuple)) else [seeds]
    plain = all(type(seed) is int and seed >= 0 for seed in seeds)
    if not seeds or not plain or len(set(seeds)) < len(seeds):
        raise InputError(
            f'{path}: seeds must be different integers >= 0, at least one, got {seeds}.'
        )
    return seeds


def _read_variant(path: Path, name, trial, cfg_options: Mapping) -> Variant:
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise InputError(
            'a name is letters, digits, "-", "_" and ".", and begins with a letter, a '
            'digit or "_".'
        )
    if not isinstance(trial, dict) or not isinstance(trial.get('config'), str):
        raise InputError(f'expected dict(config=FILE), got {trial!r}.')
    _refuse_unknown('the trial', trial, TRIAL_KEYS)
    options = trial.get('options') or {}
    if not isinstance(options, dict) or not all(isinstance(k, str) for k in options):
        raise InputError(f'options must map dotted keys, got {options!r}.')
    cfg = _read_config(path.parent / trial['config'])
    for overrides in (options, cfg_options):
        cfg = derive_config(cfg, overrides)
    stages = (cfg.get('active_learning') or {}).get('stages')
    if type(stages) is not int:
        raise InputError(
            f'active_learning.stages must be the number of stages, got {stages!r}.'
        )
    return Variant(name, cfg)


def derive_config(cfg: Config, options: Mapping[str, object]) -> Config:
    """A config with overrides by dotted key, which must name what it has.

    Args:
        cfg: Not changed.
        options: Of a trial, see ``read_sweep``.

    Raises:
        InputError: If an option does not fit; names all that do not.
    """
    problems = [
        f'option {key!r}: {problem}'
        for key, value in options.items()
        for problem in _option_problems(cfg.to_dict(), key.split('.'), value)
    ]
    if problems:
        raise InputError('\n  '.join(['', *problems]) if problems[1:] else problems[0])
    derived = copy.deepcopy(cfg)
    try:
        # Merging takes _delete_ out of the options themselves.
        derived.merge_from_dict(copy.deepcopy(dict(options)))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f'options {dict(options)} do not fit: {type(error).__name__}: {error}'
        ) from None
    if _seed(derived) != _seed(cfg):
        raise InputError("option 'randomness.seed': seeds says with which to run.")
    return derived


def _seed(cfg: Config) -> object:
    return (cfg.get('randomness') or {}).get('seed')


def _option_problems(parent, keys: list[str], value, above: str = '') -> Iterator[str]:
    """What is wrong with an override of ``keys`` below a part of a config."""
    key, *rest = keys
    path = f'{above}.{key}' if above else key
    if isinstance(parent, list):
        if not key.isdigit() or int(key) >= len(parent):
            yield f'{above} is a list of {len(parent)}, and {key!r} no place in it.'
            return
        here = parent[int(key)]
    elif not isinstance(parent, dict):
        yield f'{above} is {parent!r} and holds no settings.'
        return
    elif key in parent:
        here = parent[key]
    else:
        # A class refuses arguments that it does not know: only the plainest slips are
        # caught for it. Other sections may ignore what they do not know.
        likeness = 0.6 if rest else 0.9 if 'type' in parent else 0.8
        similar = difflib.get_close_matches(key, parent, 1, likeness)
        hint = f'; did you mean {similar[0]!r}?' if similar else '.'
        if rest or not above or similar:
            yield (
                f'the config has no {path}{hint} (If it is meant, set it in a config '
                'file of its own.)'
            )
        return
    if rest:
        yield from _option_problems(here, rest, value, path)
    elif isinstance(value, dict) and isinstance(here, dict):
        if not value.get('_delete_'):
            for name, part in value.items():
                yield from _option_problems(here, [str(name)], part, path)


def config_text(variant: Variant) -> str:
    """The merged config as a file that reads as the same config.

    Raises:
        InputError: If it cannot be written as one.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'config.py'
        try:
            text = variant.cfg.pretty_text
            path.write_text(text, encoding='utf-8')
            if _reads_as(path, variant.cfg):
                return text
            reason = 'it reads as another config'
        except (SyntaxError, InputError) as error:
            reason = str(error).strip().splitlines()[0].replace(str(path), 'it')
    raise InputError(
        f'trial {variant.name!r}: its config cannot be written as a file '
        f'({reason}). Values must be plain: numbers (not inf or nan), strings, lists, '
        'tuples, dicts.'
    )


def _reads_as(path: Path, cfg: Config) -> bool:
    return _read_config(path).to_dict() == cfg.to_dict()


def write_configs(variants: Sequence[Variant], work_dir: Path) -> None:
    """Write the merged configs that are not there yet, or are others.

    Raises:
        InputError: If one cannot be written; nothing is written then.
    """
    texts = {}
    for variant in variants:
        path = variant.config_file(work_dir)
        with contextlib.suppress(InputError):
            if _reads_as(path, variant.cfg):
                continue
        texts[path] = config_text(variant)
    for path, text in texts.items():
        write_text(path, text)
