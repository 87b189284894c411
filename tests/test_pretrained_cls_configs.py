"""Classifiers on frozen features: which images they see, and whole small trials."""

import collections
import importlib.util
import json

import numpy as np
import pytest
import torch
from conftest import CLASSES, config_path, load_tool
from mmengine.config import Config

from tjls_mm.active.trial import run_stages
from tjls_mm.datasets import ImageFolders, ImageLists
from tjls_mm.errors import InputError
from tjls_mm.models import frozen_backbone
from tjls_mm.models.efficientnet_lite import PACKAGES
from tjls_mm.registry import MODELS

SCOPE = 'mmpretrain'


@pytest.fixture(scope='module')
def tool():
    return load_tool('make_long_tail')


def test_the_long_tail_of_cifar10(tool):
    counts = tool.long_tail_counts(5000, 10, 100)
    assert counts == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    assert tool.long_tail_counts(7, 4, 1) == [7] * 4
    # The power of 1000^(1/3) is no whole number in floating point.
    assert tool.long_tail_counts(1000, 4, 1000) == [1000, 100, 10, 1]


@pytest.mark.parametrize('numbers', [(5, 1, 2), (5, 3, 0.5), (5, 3, 6), (0, 3, 1)])
def test_a_tail_that_cannot_be_is_refused(tool, numbers):
    with pytest.raises(InputError, match='A long tail needs 2 or more classes'):
        tool.long_tail_counts(*numbers)


def long_tail(tool, class_folders, tmp_path, **options) -> dict:
    """List files in a folder of their own, images where they are."""
    root = tmp_path / 'data'
    if not root.exists():
        root.mkdir()
        for name in ('train', 'test'):
            (root / name).symlink_to(class_folders / name)
    return tool.make_long_tail(root, ['train'], ['test'], **options)


def test_lists_hold_the_first_images_of_each_class(tool, class_folders, tmp_path):
    settings = long_tail(tool, class_folders, tmp_path, imbalance=10)
    kind = settings.pop('type')
    source = ImageLists(**settings)
    assert kind == 'tjls_mm.ImageLists' and source.classes == CLASSES
    pool = source.list_images('pool')
    assert collections.Counter(map(source.label, pool)) == {0: 20, 1: 9, 2: 4, 3: 2}
    assert pool[-2:] == ['train/plain/0000.png', 'train/plain/0001.png']
    folders = ImageFolders(str(class_folders), ['train'], ['test'])
    assert source.list_images('test') == folders.list_images('test')
    assert all(source.label(i) == folders.label(i) for i in pool)


def test_the_same_folders_give_the_same_lists(tool, class_folders, tmp_path):
    paths = [tmp_path / 'data' / f'long_tail_10_{s}.txt' for s in ('pool', 'test')]
    contents = []
    for _ in range(2):
        long_tail(tool, class_folders, tmp_path, imbalance=10)
        contents.append([path.read_bytes() for path in paths])
        paths[0].write_text('')
    assert contents[0] == contents[1]


def test_a_class_with_too_few_images_is_named(tool, class_folders, tmp_path, capsys):
    with pytest.raises(InputError, match=r'Class 0 .*has 20 images, expected 30'):
        long_tail(tool, class_folders, tmp_path, imbalance=10, most=30)
    assert tool.main([str(tmp_path / 'none')]) == 1
    assert 'does not exist' in capsys.readouterr().err


def test_a_part_of_the_images_is_spread_over_all(class_folders):
    dirs = dict(pool_dirs=['train'], test_dirs=['test'])
    every = ImageFolders(str(class_folders), **dirs)
    source = ImageFolders(str(class_folders), **dirs, max_pool=40, max_test=9)
    pool = source.list_images('pool')
    assert pool == every.list_images('pool')[::2]
    assert collections.Counter(map(source.label, pool)) == dict.fromkeys(range(4), 10)
    assert len(source.list_images('test')) == 9
    # What a stage builds of it lists the same images.
    settings = source.settings()
    settings.pop('type')
    assert ImageFolders(**settings).list_images('pool') == pool
    # A maximum, not a number to reach.
    source.max_pool = 81
    assert source.list_images('pool') == every.list_images('pool')


@pytest.mark.parametrize('most', [0, -1, 2.5, '10', True])
def test_a_maximum_that_is_no_count_is_refused(class_folders, most):
    with pytest.raises(InputError, match='data_source.max_test must be a number'):
        ImageFolders(str(class_folders), ['train'], ['test'], max_test=most)


def frozen(**options):
    torch.manual_seed(0)
    backbone = dict(type='tjls_mm.EfficientNetLite0', out_indices=(3, 4))
    config = dict(type='tjls_mm.FrozenBackbone', backbone=backbone, **options)
    return MODELS.build(config)


def test_pooled_features_are_the_averages_of_the_maps():
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    frozen_backbone._FEATURES.clear()
    # Both are remembered, and neither is taken for the other.
    maps = frozen(cached_images=8)(images)
    for _ in range(2):
        pooled = frozen(cached_images=8, pooled=True)(images)
        assert [tuple(level.shape) for level in pooled] == [
            (2, 112, 1, 1),
            (2, 320, 1, 1),
        ]
        for mean, level in zip(pooled, maps, strict=True):
            torch.testing.assert_close(mean.squeeze(), level.mean((2, 3)))


def test_images_are_resized_before_the_backbone():
    ramp = torch.linspace(0, 1, 32).expand(1, 3, 32, 32)
    large = torch.nn.functional.interpolate(ramp, (96, 64), mode='bilinear')
    for ours, own in zip(frozen(size=(96, 64))(ramp), frozen()(large), strict=True):
        torch.testing.assert_close(ours, own)
    assert frozen(size=64)(ramp)[1].shape[-2:] == (2, 2)


def lite0_config(data, work_dir, name='lite0_cifar10jpeg_margin'):
    """A trial of a frozen classifier that runs in seconds."""
    cfg = Config.fromfile(config_path(name))
    options = {
        'work_dir': str(work_dir),
        'data_source.data_root': str(data),
        'data_source.max_pool': 60,
        'data_source.max_test': None,
        'active_learning.initial': 16,
        'active_learning.budget': 8,
        'active_learning.stages': 2,
        'active_learning.console': 'log',
        'train_dataloader.batch_size': 16,
        'train_cfg.max_iters': 40,
        'param_scheduler.0.total_steps': 40,
        'data_preprocessor.augmentation.crop_size': 16,
        'model.backbone.size': 64,
        'model.head.num_classes': 4,
    }
    cfg.merge_from_dict(options)
    return cfg


@pytest.mark.skipif(
    importlib.util.find_spec(PACKAGES['efficientnet_lite0']) is None,
    reason='needs the extra pretrained',
)
def test_a_frozen_classifier_learns_and_chooses_by_margin(class_folders, tmp_path):
    frozen_backbone._FEATURES.clear()
    run_stages(lite0_config(class_folders, tmp_path))
    stages = [tmp_path / f'stage_{i:02d}' for i in range(2)]
    accuracies = [
        json.loads((stage / 'metrics.json').read_text())['metrics']['accuracy/top1']
        for stage in stages
    ]
    assert max(accuracies) > 60  # chance: 25
    pool = np.genfromtxt(
        stages[0] / 'selection.csv', delimiter=',', names=True, encoding='utf-8'
    )
    assert len(pool) == 60 - 16
    margins = pool['uncertainty'][np.argsort(pool['rank'])]
    assert margins[:8].min() >= margins[8:].max()
    # Every image as it is, and the labelled ones mirrored, once.
    assert len(frozen_backbone._FEATURES) == 60 + 24 + 24
    learned = torch.load(stages[1] / 'model.pth', weights_only=True)['state_dict']
    source = torch.load(stages[0] / 'model.pth', weights_only=True)['state_dict']
    for name in learned:
        assert learned[name].equal(source[name]) == name.startswith('backbone.')
