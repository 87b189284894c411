"""What the docs show runs as it stands there."""

import re
import sys

import pytest
from conftest import ROOT, make_classifier_config, make_config
from mmengine.config import Config

from tjls_mm.active.config_file import read_config
from tjls_mm.active.trial import run_stages
from tjls_mm.registry import MODELS
from tjls_mm.stage_folder import StageFolder


def blocks(name: str) -> list[str]:
    text = (ROOT / 'docs' / f'{name}.md').read_text(encoding='utf-8')
    return re.findall(r'```python\n(.*?)```', text, re.DOTALL)


@pytest.mark.parametrize('task', ['detection', 'classification'])
def test_a_strategy_in_a_file_of_its_own(
    task, demo_data, class_folders, tmp_path, monkeypatch
):
    strategy, config, *_ = blocks('strategies')
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
    (text,) = blocks('architecture')
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
