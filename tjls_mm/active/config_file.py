"""Read the config of a trial."""

import os
import os.path as osp
from collections.abc import Sequence

from mmengine.config import Config, DictAction
from mmengine.hub import get_config

from tjls_mm.active.adopt import adopt_config
from tjls_mm.active.settings import walk
from tjls_mm.errors import InputError


def read_config(
    path: str, options: Sequence[str] = (), seed: int | None = None
) -> Config:
    """A trial's config, see ``load_config``; one of mmdet is adopted.

    Process 0 prints what was changed.
    """
    return adopted(load_config(path, options, seed))


def adopted(cfg: Config) -> Config:
    """The config of a trial from one of mmdet, or the same; prints what was changed."""
    path, (cfg, notes) = cfg.filename, adopt_config(cfg)
    if notes and int(os.environ.get('RANK', 0)) == 0:
        print(f'adopted from mmdet ({path}):', *notes, sep='\n  ', flush=True)
    return cfg


def load_config(
    path: str, options: Sequence[str] = (), seed: int | None = None
) -> Config:
    """A text config with overrides (``KEY=VALUE``, as for MMEngine's tools) and seed.

    The path is of a file, or of a config of a package: ``mmdet::rtmdet/NAME.py``.
    InputError if the file cannot be read, or an override does not fit.
    """
    of_package = '::' in path
    if not of_package and not osp.isfile(path):
        raise InputError(f'The config file {path} does not exist.')
    try:
        cfg = get_config(path) if of_package else Config.fromfile(path)
    # A text config is Python, and so are the modules that it imports: both raise what
    # their lines raise.
    except Exception as error:
        reason = f'{type(error).__name__}: {error}'.strip()
        raise InputError(
            f'{path} cannot be read as a config ({reason}). Correct it, its _base_ '
            'files or its custom_imports.'
        ) from error
    # MMEngine's new style keeps classes where text configs have names.
    for where, key, value in walk(cfg._cfg_dict):
        if key == 'type' and not isinstance(value, str):
            raise InputError(
                f'{path}: {where} is a class, as in new-style configs: inherit the '
                "text config, _base_ = 'mmdet::FAMILY/NAME.py', and write its name."
            )
    for option in options:
        key, separator, value = option.partition('=')
        if not separator or not key:
            raise InputError(f'--cfg-options: expected KEY=VALUE, found {option!r}.')
        try:
            cfg.merge_from_dict({key: DictAction._parse_iterable(value)})
        except (KeyError, IndexError, TypeError, AttributeError, AssertionError) as e:
            raise InputError(
                f'--cfg-options {option}: it does not fit the config '
                f'({type(e).__name__}: {e}). Check the key, and the positions in lists.'
            ) from None
    if seed is not None:
        cfg.randomness = dict(cfg.get('randomness') or {}, seed=seed)
    return cfg
