"""Pretrained features that a command line asks for."""

import os.path as osp
from collections.abc import Mapping

from mmengine.config import Config

from tjls_mm.active.checks import TRUSTED, WEIGHTS, missing_weights
from tjls_mm.active.config_file import load_config
from tjls_mm.active.features import build_features
from tjls_mm.active.handed_model import TRUST, read_weights
from tjls_mm.active.ranking_inputs import parse_settings
from tjls_mm.active.settings import walk
from tjls_mm.compat import loading_on_this_process
from tjls_mm.errors import InputError, raise_first
from tjls_mm.models.pretrained_features import PretrainedFeatures


def handed_features(text: str | None, cfg: Config, trust: bool) -> PretrainedFeatures:
    """A backbone with its weights.

    Args:
        text: Settings of ``PretrainedFeatures``, see ``parse_settings``, or a config
            file that has them as ``features`` or in ``method``; empty: what ``cfg``
            has, or the default.
        cfg: Config of the learner, or an empty one.
        trust: Whether to unpickle weights that torch cannot load safely.

    Raises:
        InputError: If it cannot be built, or its weights cannot be loaded.
    """
    config = _settings(text, cfg)
    model = build_features(cfg, config)
    raise_first(missing_weights(model.config))
    for where, key, name in walk(model.config, 'features.backbone'):
        if key in WEIGHTS and isinstance(name, str):
            if '://' not in name:
                read_weights(name, trust)
            elif not name.startswith(TRUSTED) and not trust:
                raise InputError(
                    f'{where}: {name} is fetched from where it could be tampered '
                    f'with. Use https, or a file; or if you trust it: {TRUST}'
                )
    with loading_on_this_process():
        return build_features(cfg, config, load=True)


def _settings(text: str | None, cfg: Config) -> Mapping:
    if text and osp.isfile(text):
        cfg = load_config(text)
    elif text:
        own = parse_settings(text, '--features')
        scoped = '.' in own['type']
        return own if scoped else {**own, 'type': f'tjls_mm.{own["type"]}'}
    own = cfg.get('features') or (cfg.get('method') or {}).get('features')
    if own is None and text:
        raise InputError(
            f"--features {text}: expected features=dict(type='tjls_mm."
            "PretrainedFeatures', backbone=..., mean=..., std=...) in it."
        )
    return own or dict(type='tjls_mm.PretrainedFeatures')
