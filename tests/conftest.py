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
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _scope(request):
    from mmengine.registry import DefaultScope, init_default_scope

    scope = getattr(request.module, 'SCOPE', 'mmdet')
    current = DefaultScope.get_current_instance()
    # A Runner of the test before may have left its own.
    if current is None or current.scope_name != scope:
        init_default_scope(scope)


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


def config_path(name: str) -> Path:
    """File of a config by its name."""
    (path,) = (p for p in CONFIG_PATHS if p.stem == name)
    return path


CONFIG_PATHS = sorted(
    path
    for path in (ROOT / 'configs').rglob('*.py')
    if path.relative_to(ROOT / 'configs').parts[0]
    not in ('_base_', 'ladders', 'sweeps')
)
CONFIGS = [path.stem for path in CONFIG_PATHS]
CLASSIFICATION_CONFIGS = [
    path.stem for path in CONFIG_PATHS if path.parent.name == 'classification'
]
ADOPTED_CONFIGS = ['example_own_detector']  # they inherit detectors of mmdet
DETECTION_CONFIGS = [
    name for name in CONFIGS if name not in CLASSIFICATION_CONFIGS + ADOPTED_CONFIGS
]

CHANNELS, OUT_CHANNELS = (16, 32, 64), (16, 32, 64, 64)
TINY = {
    'active_learning.initial': 8,
    'active_learning.budget': 6,
    'active_learning.stages': 2,
    'train_dataloader.batch_size': 4,
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

    cfg = Config.fromfile(config_path(name))
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


CLASSES = ('bars', 'checks', 'discs', 'plain')


def draw_class_image(name: str, seed: int, side: int = 16):
    """A noisy image of a pattern, (side, side, 3), uint8."""
    import numpy as np

    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side]
    x, y = x + rng.integers(side), y + rng.integers(side)
    pattern = {
        'bars': x % 4 < 2,
        'checks': (x // 4 + y // 4) % 2 == 0,
        'discs': (x % 8 - 4) ** 2 + (y % 8 - 4) ** 2 < 9,
        'plain': np.full(x.shape, 0.5),
    }[name]
    colour = rng.integers(60, 196, 3)
    image = (
        colour + (pattern[..., None] - 0.5) * 100 + rng.normal(0, 12, (side, side, 3))
    )
    return image.clip(0, 255).astype(np.uint8)


def draw_class_folders(root: Path, n_train: int, n_test: int, side: int = 16) -> Path:
    """Class folders ``train`` and ``test`` of PNG files, so many images per class."""
    from PIL import Image

    for split, count in (('train', n_train), ('test', n_test)):
        for number, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                seed = (split == 'test') * 100_000 + number * 10_000 + i
                image = draw_class_image(name, seed, side)
                Image.fromarray(image).save(folder / f'{i:04d}.png')
    return root


@pytest.fixture(scope='session')
def class_folders(tmp_path_factory) -> Path:
    """Four classes: 80 training and 24 test images of 16 x 16 pixels."""
    return draw_class_folders(tmp_path_factory.mktemp('class_folders'), 20, 6)


TINY_CLASSIFIER = {
    'active_learning.initial': 16,
    'active_learning.budget': 8,
    'active_learning.stages': 2,
    'active_learning.console': 'log',
    'train_dataloader.batch_size': 8,
    'score_dataloader.batch_size': 16,
    'train_cfg.max_epochs': 2,
    'param_scheduler.0.total_steps': 2,
    'data_preprocessor.augmentation.crop_size': 16,
    'data_preprocessor.augmentation.padding': 2,
    'model.backbone.base_channels': 8,
    'model.head.in_channels': 64,
    'model.head.num_classes': 4,
}
"""Overrides of a small classification config for a trial of seconds."""


def make_classifier_config(data: Path, work_dir: Path, method: str = 'tjls', **options):
    """A classification trial that runs in seconds."""
    from mmengine.config import Config

    cfg = Config.fromfile(config_path(f'small_cifar10jpeg_{method}'))
    places = {'work_dir': str(work_dir), 'data_source.data_root': str(data)}
    cfg.merge_from_dict({**places, **TINY_CLASSIFIER, **options})
    return cfg


def read_logits(folder: Path) -> dict[str, float]:
    """The discriminator's logits of a stage's pool, from its selection.csv."""
    import csv

    with open(folder / 'selection.csv', newline='', encoding='utf-8') as file:
        return {row['image_id']: float(row['logit']) for row in csv.DictReader(file)}
