"""Fixtures: data and configs that the tests make themselves."""

import importlib.util
import os
from pathlib import Path

# One thread: bit-equal runs, and no fight for cores between test processes.
os.environ.setdefault('OMP_NUM_THREADS', '1')

import pytest  # noqa: E402

from tjls_mm import compat  # noqa: E402, F401

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope='session', autouse=True)
def _scope():
    import torch
    from mmengine.registry import init_default_scope

    torch.set_num_threads(1)
    init_default_scope('mmdet')


def load_tool(name: str):
    """Import a script of tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / 'tools' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='session')
def demo_data(tmp_path_factory) -> Path:
    """A small demo data set: 48 pool and 16 test images."""
    out = tmp_path_factory.mktemp('demo_data')
    load_tool('make_demo_data').make_demo_data(out, seed=0, n_pool=48, n_test=16)
    return out


@pytest.fixture
def copied_data(demo_data, tmp_path) -> Path:
    """A copy of the demo data set that a test may spoil."""
    import shutil

    return Path(shutil.copytree(demo_data, tmp_path / 'data'))


CHANNELS, OUT_CHANNELS = (16, 32, 64), (16, 32, 64, 64)
TINY = {
    'active_learning.initial': 8,
    'active_learning.budget': 6,
    'active_learning.stages': 2,
    'train_dataloader.batch_size': 8,
    'score_dataloader.batch_size': 8,
    'train_cfg.max_epochs': 2,
    'param_scheduler.0.total_steps': 2,
    'model.backbone.base_channels': 8,
    'model.neck.in_channels': CHANNELS,
    'model.neck.out_channels': OUT_CHANNELS,
    'model.bbox_head.in_channels': OUT_CHANNELS,
}
"""Overrides of a demo config for a trial of seconds."""


def make_config(data: Path, work_dir: Path, name: str = 'demo_tjls', **options):
    """A trial config that runs in seconds."""
    from mmengine.config import Config

    cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
    places = {'work_dir': str(work_dir), 'data_source.data_root': str(data)}
    cfg.merge_from_dict({**places, **TINY, **options})
    return cfg


def command_line(data: Path, **options) -> list[str]:
    """The same overrides as arguments of ``--cfg-options``."""
    options = {'data_source.data_root': data, **TINY, **options}
    return [
        f'{key}={",".join(map(str, value)) if isinstance(value, tuple) else value}'
        for key, value in options.items()
    ]


@pytest.fixture
def tiny_config(demo_data, tmp_path):
    """Function that makes a trial config which runs in seconds."""

    def make(name: str = 'demo_tjls', data: Path | None = None, **options):
        return make_config(data or demo_data, tmp_path / 'work', name, **options)

    return make
