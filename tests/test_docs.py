"""What the docs show runs as it stands there."""

import re
import sys

import pytest
from conftest import ROOT, make_classifier_config, make_config
from mmengine.config import Config

from tjls_mm.active.config_file import read_config
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.stage_config import StageInputs
from tjls_mm.active.trial import run_stages
from tjls_mm.registry import MODELS
from tjls_mm.stage_folder import StageFolder, TrialFolder


def blocks(name: str) -> list[str]:
    text = (ROOT / f'{name}.md').read_text(encoding='utf-8')
    return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


@pytest.mark.parametrize('task', ['detection', 'classification'])
def test_a_strategy_in_a_file_of_its_own(
    task, demo_data, class_folders, tmp_path, monkeypatch
):
    strategy, config, *_ = blocks('docs/strategies')
    assert len(strategy.strip().splitlines()) <= 16
    (tmp_path / 'far_from_labelled.py').write_text(strategy)
    base = tmp_path / 'base.py'
    if task == 'detection':
        cfg = make_config(demo_data, tmp_path / 'work', 'demo_random')
    else:
        cfg = make_classifier_config(class_folders, tmp_path / 'work', 'random')
    cfg.pop('custom_imports')
    cfg.pop('method')
    cfg.dump(base)
    (tmp_path / 'mine.py').write_text(f"_base_ = 'base.py'\n{config}")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, 'far_from_labelled', raising=False)
    from tjls_mm.query import QUERIES

    QUERIES.module_dict.pop('FarFromLabelled', None)
    run_stages(read_config(str(tmp_path / 'mine.py')))
    folder = StageFolder(tmp_path / 'work' / 'stage_00')
    budget = cfg.active_learning.budget
    assert len(folder.answered.read_text().split()) == budget


def test_a_branch_in_a_file_of_its_own(class_folders, tmp_path):
    (text,) = blocks('docs/architecture')
    MODELS.module_dict.pop('Brightness', None)
    exec(compile(text, 'docs/architecture.md', 'exec'), {})
    branches = dict(bright=dict(type='tjls_mm.Brightness'))
    cfg = make_classifier_config(
        class_folders, tmp_path / 'work', 'random', **{'method.branches': branches}
    )
    cfg.active_learning.stages = 1
    run_stages(cfg)
    stage = Config.fromfile(StageFolder(tmp_path / 'work' / 'stage_00').config)
    # It trains beside the task and reads no pool.
    assert 'bright' in stage.model.head.branches
    assert 'pool' not in stage.train_dataloader.dataset


@pytest.mark.parametrize('page', ['README', 'docs/configuration'])
def test_a_short_config_and_its_control(page, tmp_path):
    """Own data, learner and method in a dozen lines; the control by one of them."""
    text = next(block for block in blocks(page) if 'pool_sets' in block)
    lines = [line for line in text.splitlines() if line and not line.startswith('#')]
    assert len(lines) <= 13
    sets = tmp_path / 'data' / 'helmets' / 'ImageSets' / 'Main'
    sets.mkdir(parents=True)
    for name, count in (('train', 1500), ('val', 20)):
        names = ''.join(f'{name}{i}\n' for i in range(count))
        (sets / f'{name}.txt').write_text(names)
    text = text.replace("'_base_/", f"'{ROOT}/configs/_base_/")
    text = text.replace("'data/helmets'", f"'{tmp_path}/data/helmets'")
    updates = set()
    for method in ('tjls', 'random'):
        (tmp_path / 'helmets.py').write_text(text.replace('/tjls.py', f'/{method}.py'))
        plan = TrialPlan(read_config(str(tmp_path / 'helmets.py')))
        folder = TrialFolder(tmp_path / 'work')
        stage = StageInputs(0, folder.stage(0), 200, 1300, folder.test)
        volume = plan.deriver.volume(plan.deriver.derive(stage), 1)
        updates.add(volume['task_updates'])
        assert plan.learner.uses_pool == (method == 'tjls')
    assert len(updates) == 1
