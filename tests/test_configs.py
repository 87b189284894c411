"""Every detection config plans the trial that it says."""

from pathlib import Path

import pytest
from conftest import DETECTION_CONFIGS, config_path
from mmengine.config import Config

from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.settings import walk
from tjls_mm.active.stage_config import StageInputs
from tjls_mm.models import BatchTransformer
from tjls_mm.outputs import Needs
from tjls_mm.registry import MODELS
from tjls_mm.stage_folder import TrialFolder


@pytest.fixture(autouse=True)
def _gpu(monkeypatch):
    """Configs with mixed precision are planned for the GPU they ask for."""
    monkeypatch.setattr('tjls_mm.active.checks.get_device', lambda: 'cuda')


def write_sets(root: Path, sets: dict[str, int]) -> None:
    """Image sets that name images; nothing else is needed to plan."""
    for name, count in sets.items():
        part, _, image_set = name.rpartition('/')
        folder = root / part / 'ImageSets' / 'Main'
        folder.mkdir(parents=True, exist_ok=True)
        text = ''.join(f'{image_set}{i:06d}\n' for i in range(count))
        (folder / f'{image_set}.txt').write_text(text)


SIZES = {
    'voc_': {'VOC2007/trainval': 5011, 'VOC2012/trainval': 11540, 'VOC2007/test': 4952},
    'vocmini': {'VOC2007/trainval': 2000, 'VOC2007/test': 500},
    'demo': {'VOCdemo/trainval': 400, 'VOCdemo/test': 100},
    'example': {'train': 1500, 'val': 200},
}


def budgets(plan) -> list[int]:
    """Images that each stage selects if all are answered."""
    n, found = len(plan.initial), []
    for stage in range(plan.n_stages - 1):
        found.append(plan.budget(stage, n))
        n += found[-1]
    return found


def plan_and_derive(name: str, tmp_path: Path, stage: int = 0, world_size: int = 1):
    cfg = Config.fromfile(config_path(name))
    sizes = next(s for key, s in SIZES.items() if key in name)
    write_sets(tmp_path / 'data', sizes)
    cfg.data_source.data_root = str(tmp_path / 'data')
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


@pytest.mark.parametrize('name', DETECTION_CONFIGS)
def test_config_plans_and_its_model_builds(name, tmp_path):
    plan, cfg = plan_and_derive(name, tmp_path)
    names = [v for _, key, v in walk(cfg.model) if key == 'checkpoint']
    known = {'open-mmlab://vgg16_caffe', 'package://efficientnet_lite0'}
    assert set(names) <= known
    cfg.model.backbone.init_cfg = None
    bottleneck = cfg.model.get('bottleneck') or {}
    assert bottleneck.get('batch_size') in (None, 32)
    model = MODELS.build(cfg.model)
    assert model.bbox_head.num_classes == len(plan.source.classes)
    is_tjls = 'tjls' in name or 'example' in name
    found = getattr(model, 'bottleneck', None)
    assert isinstance(found, BatchTransformer) == is_tjls
    expected = 2 * cfg.train_dataloader.batch_size - 1 if is_tjls else 0
    assert plan.deriver.bank_size(1) == expected
    plain = 'random' in name or 'full' in name
    assert (plan.query.needs == Needs()) == plain
    is_joint = not plain and 'auto' not in name
    assert ('pool' in cfg.train_dataloader.dataset) == is_joint


def test_the_papers_protocol_on_voc(tmp_path):
    plan, cfg = plan_and_derive('ssd300_voc_tjls', tmp_path, stage=9)
    assert len(plan.image_ids) == 16_551
    assert len(plan.initial) == 1000 and budgets(plan) == [1000] * 9
    # 300 passes over 10,000 images, 16 a task update, two updates a batch.
    volume = plan.deriver.volume(cfg, 1)
    assert volume['task_updates'] == 187_500 and volume['iterations'] == 375_000
    assert volume['labelled_exposures'] == 300 * 10_000
    assert cfg.param_scheduler[0].milestones == [300_000]
    optimizer = cfg.optim_wrapper.optimizer
    assert (optimizer.lr, optimizer.momentum, optimizer.weight_decay) == (
        1e-3,
        0.9,
        5e-4,
    )
    plain, random = plan_and_derive('ssd300_voc_random', tmp_path, stage=9)
    assert plain.deriver.volume(random, 1)['task_updates'] == 187_500
    assert random.param_scheduler[0].milestones == [150_000]


def test_eight_processes_share_the_papers_batch(tmp_path):
    plan, cfg = plan_and_derive('ssd300_voc_tjls', tmp_path, world_size=8)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.model.bottleneck.gather and plan.deriver.bank_size(8) == 31
    _, channels = plan_and_derive('ssd300_voc_tjls-channels', tmp_path, world_size=8)
    assert channels.model.bottleneck.batch_size == 32


def test_all_methods_start_from_the_same_images(tmp_path):
    starts = [
        plan_and_derive(f'ssd300_voc_{name}', tmp_path)[0].initial
        for name in ('tjls', 'jls', 'random', 'tjls-channels')
    ]
    assert all(start == starts[0] for start in starts)


def test_pool_and_labelled_pipelines_differ_in_annotations_only(tmp_path):
    for name in ('ssd300_voc_tjls', 'ssd512_voc_tjls', 'demo_tjls'):
        _, cfg = plan_and_derive(name, tmp_path / name)
        parts = cfg.train_dataloader.dataset
        assert parts.labelled.pipeline[2:] == parts.pool.pipeline[2:]
        assert parts.pool.pipeline[1].type == 'LoadEmptyAnnotations'
        score = [t.type for t in cfg.score_dataloader.dataset.pipeline]
        assert not any('Annotations' in t for t in score)
        test = [t.type for t in cfg.val_dataloader.dataset.pipeline]
        assert [t for t in test if t != 'LoadAnnotations'] == score


def test_every_stage_writes_its_curves_into_its_own_folder(tmp_path):
    _, cfg = plan_and_derive('demo_tjls', tmp_path, stage=1)
    assert cfg.work_dir.endswith('stage_01')
    assert cfg.visualizer.name == cfg.experiment_name == str(tmp_path / 'work/stage_01')
