"""Whole trials of a dense, a two-stage and a query detector: run, stop, resume."""

import families
import pytest
import torch
from mmengine.config import ConfigDict

from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.trial import run_stages
from tjls_mm.compat import missing_operators
from tjls_mm.engine import StageTrainLoop
from tjls_mm.errors import InputError
from tjls_mm.stage_folder import TrialFolder

SIDE = families.SIDE


def make(tiny_config, name: str, **options):
    """A demo trial of the detector of a family with TJLS for any detector."""
    cfg = tiny_config('demo_tjls', **{'active_learning.console': 'summary', **options})
    cfg.model = families.family(name)
    cfg.method = ConfigDict(
        query=dict(type='tjls_mm.Discriminator'),
        bottleneck=dict(type='tjls_mm.BatchTransformer', hidden=16),
        branches=dict(
            discriminator=dict(type='tjls_mm.DiscriminatorHead', normalize=False)
        ),
    )
    cfg.train_dataloader.batch_size = cfg.auto_scale_lr.base_batch_size = 2
    cfg.train_cfg = dict(max_iters=3)
    cfg.param_scheduler = []
    cfg.optim_wrapper.optimizer.lr = 1e-4
    for loader in (cfg.train_dataloader, cfg.val_dataloader):
        for step in loader.dataset.pipeline:
            if step.type == 'Resize':
                step.scale = (SIDE, SIDE)
    return cfg


def content(folder: TrialFolder) -> dict:
    """Selections and weights of both stages."""
    found = {}
    for number in range(2):
        stage = folder.stage(number)
        weights = torch.load(stage.model, weights_only=True)['state_dict']
        found[number] = stage.labelled.read_text(), weights
    found['selection'] = folder.stage(0).selection.read_text()
    return found


@pytest.mark.parametrize('name', ['retinanet', 'faster_rcnn', 'detr'])
def test_a_stopped_trial_ends_as_one_that_was_not(name, tiny_config, monkeypatch):
    cfg = make(tiny_config, name)
    cfg.default_hooks.checkpoint = dict(type='tjls_mm.StageCheckpointHook', interval=1)
    whole, stopped = cfg.copy(), cfg.copy()
    whole.work_dir, stopped.work_dir = cfg.work_dir + '/a', cfg.work_dir + '/b'
    run_stages(whole)
    run_iter, calls = StageTrainLoop.run_iter, []

    def run_or_stop(self, batch):
        calls.append(self)
        # In the middle of either stage.
        if len(calls) in (3, 7):
            raise KeyboardInterrupt
        run_iter(self, batch)

    monkeypatch.setattr(StageTrainLoop, 'run_iter', run_or_stop)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run_stages(stopped)
    run_stages(stopped)
    assert len(calls) == 2 * 3 + 2
    expected, found = (content(TrialFolder(c.work_dir)) for c in (whole, stopped))
    assert found['selection'] == expected['selection']
    for number in range(2):
        assert found[number][0] == expected[number][0]
        (ours, theirs) = found[number][1], expected[number][1]
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.mark.parametrize('name', families.NEED_DEFORMABLE_CONVOLUTION)
def test_a_missing_operator_is_refused_when_the_config_is_read(name, tiny_config):
    if not any(missing_operators(families.build(families.family(name)))):
        pytest.skip('mmcv has its compiled operators here')
    with pytest.raises(InputError, match='operator.*make ops'):
        TrialPlan(make(tiny_config, name))


@pytest.mark.parametrize('name', sorted(families.UNSUPPORTED))
def test_what_cannot_be_trained_jointly_is_refused_too(name, tiny_config):
    cfg = make(tiny_config, 'retinanet')
    cfg.model = families.original(name)
    with pytest.raises(InputError, match='cannot be trained jointly.*random.py'):
        TrialPlan(cfg)
