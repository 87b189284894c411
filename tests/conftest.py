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


@pytest.fixture
def tiny_config(demo_data, tmp_path):
    """Function that makes a trial config which runs in seconds."""
    from mmengine.config import Config

    def make(name: str = 'demo_tjls', data: Path | None = None, **options):
        cfg = Config.fromfile(ROOT / 'configs' / f'{name}.py')
        cfg.merge_from_dict(
            {
                'work_dir': str(tmp_path / 'work'),
                'data_source.data_root': str(data or demo_data),
                'active_learning.initial': 8,
                'active_learning.budget': 6,
                'active_learning.stages': 2,
                'train_dataloader.batch_size': 8,
                'score_dataloader.batch_size': 8,
                'train_cfg.max_epochs': 2,
                'param_scheduler.0.total_steps': 2,
                'model.backbone.base_channels': 8,
                'model.neck.in_channels': (16, 32, 64),
                'model.neck.out_channels': (16, 32, 64, 64),
                'model.bbox_head.in_channels': (16, 32, 64, 64),
                **options,
            }
        )
        return cfg

    return make
