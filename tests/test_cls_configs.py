"""Every classification config plans the trial that it says."""

from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSIFICATION_CONFIGS, config_path
from mmengine.config import Config

from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.stage_config import StageInputs
from tjls_mm.datasets import binary_images
from tjls_mm.models import BatchGCN, BatchTransformer
from tjls_mm.outputs import Needs
from tjls_mm.registry import MODELS
from tjls_mm.stage_folder import TrialFolder

SCOPE = 'mmpretrain'
SIZES = {
    'CIFAR10': (50_000, 10_000, 32, 3),
    'CIFAR100': (50_000, 10_000, 32, 3),
    'FashionMNIST': (60_000, 10_000, 28, 1),
}
"""Training and test images, their side and channels."""


@pytest.fixture(autouse=True)
def _binary_files(monkeypatch):
    """The binary sets in their true sizes, each image the same."""

    def load(dataset, data_root, split):
        train, test, side, channels = SIZES[dataset.split('.')[1]]
        count = train if split == 'train' else test
        shape = (side, side, 3) if channels == 3 else (side, side)
        return [np.zeros(shape, np.uint8)] * count, np.zeros(count, int)

    monkeypatch.setattr(binary_images, '_check_files', lambda *args: None)
    monkeypatch.setattr(binary_images, '_load', load)


def touch_folders(cfg, root: Path) -> None:
    """Class folders with enough image files to plan; none is opened."""
    cfg.data_source.data_root = str(root)
    n_classes = cfg.model.head.num_classes
    for name in {*cfg.data_source.pool_dirs, *cfg.data_source.test_dirs}:
        for i in range(n_classes):
            folder = root / name / f'class{i}'
            folder.mkdir(parents=True, exist_ok=True)
            count = 1 if name in cfg.data_source.test_dirs else 2400 // n_classes
            for k in range(count):
                (folder / f'{k}.png').touch()


def write_lists(cfg, root: Path) -> None:
    """List files with enough images to plan; none is opened."""
    cfg.data_source.data_root = str(root)
    root.mkdir()
    for names, count in (('pool_files', 2400), ('test_files', 10)):
        for name in cfg.data_source[names]:
            lines = [f'{name}/{i}.png {i % 10}\n' for i in range(count)]
            (root / name).write_text(''.join(lines))


def budgets(plan) -> list[int]:
    """Images that each stage selects if all are answered."""
    n, found = len(plan.initial), []
    for stage in range(plan.n_stages - 1):
        found.append(plan.budget(stage, n))
        n += found[-1]
    return found


def plan_and_derive(name: str, tmp_path: Path, stage: int = 0, world_size: int = 1):
    cfg = Config.fromfile(config_path(name))
    if cfg.data_source.type == 'tjls_mm.ImageFolders':
        touch_folders(cfg, tmp_path / 'data')
    if cfg.data_source.type == 'tjls_mm.ImageLists':
        write_lists(cfg, tmp_path / 'data')
    cfg.work_dir = str(tmp_path / 'work')
    plan = TrialPlan(cfg, world_size)
    n_labelled = len(plan.initial) + sum(budgets(plan)[:stage])
    folder = TrialFolder(tmp_path / 'work')
    inputs = StageInputs(
        stage,
        folder.stage(stage),
        n_labelled,
        len(plan.image_ids) - n_labelled,
        folder.test,
        world_size,
    )
    return plan, plan.deriver.derive(inputs)


@pytest.mark.parametrize('name', CLASSIFICATION_CONFIGS)
def test_config_plans_and_its_model_builds(name, tmp_path):
    plan, cfg = plan_and_derive(name, tmp_path)
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model)
    head = model.head
    assert head.num_classes == len(plan.source.classes)
    is_tjls = 'tjls' in name or 'example' in name
    assert isinstance(getattr(head, 'bottleneck', None), BatchTransformer) == is_tjls
    assert isinstance(getattr(head, 'bottleneck', None), BatchGCN) == ('gcn' in name)
    with_bank = is_tjls or 'gcn' in name
    assert plan.deriver.bank_size(1) == (
        2 * cfg.train_dataloader.batch_size - 1 if with_bank else 0
    )
    assert (plan.query.needs == Needs()) == ('random' in name)
    is_joint = not any(plain in name for plain in ('random', 'margin', 'auto'))
    assert ('pool' in cfg.train_dataloader.dataset) == is_joint
    total = cfg.train_dataloader.batch_size
    assert cfg.auto_scale_lr.base_batch_size == total


def test_the_papers_protocol_on_cifar(tmp_path):
    plan, cfg = plan_and_derive('vgg16_cifar10_tjls', tmp_path, stage=6)
    assert len(plan.image_ids) == 50_000 and len(plan.test_ids) == 10_000
    # 10 % and 6 times 5 %: 40 % in the last of 7 stages.
    assert len(plan.initial) == 5000 and budgets(plan) == [2500] * 6
    volume = plan.deriver.volume(cfg, 1)
    # 200 passes over 20,000 images, 64 a task update, two updates a batch.
    assert volume['labelled_exposures'] == 200 * 20_000
    assert volume['task_updates'] == 62_500 and volume['iterations'] == 125_000
    assert cfg.param_scheduler[0].milestones == [100_000]
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (
        0.01,
        0.9,
        5e-4,
    )
    assert optimizer.nesterov
    discriminator = cfg.model.head.branches.discriminator
    assert discriminator.hidden_features == (512,)
    assert discriminator.loss_weight == 0.5


def test_table_1_goes_from_25_to_40_percent(tmp_path):
    plan, cfg = plan_and_derive('wrn28_cifar100_tjls', tmp_path)
    assert len(plan.initial) == 12_500 and budgets(plan) == [2500] * 3
    assert cfg.model.backbone.dropout == 0.3


def test_all_methods_start_from_the_same_images(tmp_path):
    starts = [
        plan_and_derive(f'vgg16_cifar100_{name}', tmp_path)[0].initial
        for name in ('tjls', 'jls', 'gcn', 'random')
    ]
    assert all(start == starts[0] for start in starts)


@pytest.mark.parametrize('name', ['resnet18_rafd_tjls', 'small_ck48_gcn'])
def test_synthetic_images_are_the_pool_of_all_real_ones(name, tmp_path):
    plan, _ = plan_and_derive(name, tmp_path)
    assert {i.split('/')[0] for i in plan.initial} == {'real'}
    assert len(plan.initial) == sum(i.startswith('real/') for i in plan.image_ids)
    pool = set(plan.image_ids) - set(plan.initial)
    assert {i.split('/')[0] for i in pool} == {'synthetic'}


def test_eight_processes_share_the_papers_batch(tmp_path):
    plan, cfg = plan_and_derive('vgg16_cifar100_gcn', tmp_path, world_size=8)
    assert cfg.train_dataloader.batch_size == 8
    assert cfg.model.head.bottleneck.gather and plan.deriver.bank_size(8) == 127
