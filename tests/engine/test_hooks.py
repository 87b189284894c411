"""What hooks do inside a Runner, seen by a hook of a user's own."""

import shutil

import pytest
import torch
from conftest import make_config
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner

from tjls_mm.active.trial import run_stages
from tjls_mm.engine import StageTrainLoop
from tjls_mm.errors import InputError
from tjls_mm.models import find_joint_learner
from tjls_mm.registry import HOOKS
from tjls_mm.stage_folder import StageFolder

SEEN: dict[str, list] = {}


@HOOKS.register_module(force=True)
class Witness(Hook):
    """Writes down what it sees, and counts iterations in checkpoints."""

    priority = 'BELOW_NORMAL'

    def __init__(self, bad_state: bool = False) -> None:
        self.bad_state = bad_state
        self.count = 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        learner = find_joint_learner(runner.model)
        ids = sorted(s.image_id for s in data_batch['data_samples'])
        SEEN.setdefault('turns', []).append(learner and learner.turn)
        SEEN.setdefault('batches', []).append(ids)
        held_out = [s.image_id for s in data_batch['data_samples'] if s.is_held_out]
        SEEN.setdefault('held out', []).extend(held_out)

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.count += 1
        SEEN['count'] = self.count

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['witness'] = object() if self.bad_state else self.count

    def after_load_checkpoint(self, runner, checkpoint):
        self.count = checkpoint.get('witness', 0)


@pytest.fixture
def run(demo_data, tmp_path):
    def start(work_dir=None, **options):
        SEEN.clear()
        hooks = options.pop('custom_hooks', [dict(type='tjls_mm.Witness')])
        options = {'active_learning.stages': 1, 'custom_hooks': hooks, **options}
        cfg = make_config(demo_data, work_dir or tmp_path / 'work', **options)
        run_stages(cfg)
        return StageFolder((work_dir or tmp_path / 'work') / 'stage_00')

    return start


def test_joint_updates_take_no_turns(run):
    run()
    assert SEEN['turns'] == ['joint'] * 4


def test_updates_alternate_on_the_same_batch(run):
    run(**{'method.update': 'alternate'})
    assert SEEN['turns'] == ['task', 'sampler'] * 4
    batches = SEEN['batches']
    assert batches[0::2] == batches[1::2] and batches[0] != batches[2]


def test_turns_last_as_long_as_gradients_accumulate(run):
    run(**{'method.update': 'alternate', 'optim_wrapper.accumulative_counts': 2})
    assert SEEN['turns'] == ['task', 'task', 'sampler', 'sampler'] * 2
    batches = SEEN['batches']
    assert batches[:2] == batches[2:4] and batches[0] != batches[1]


def test_held_out_images_train_the_task_and_are_measured(run):
    import json

    from tjls_mm.image_ids import read_image_ids

    folder = run(**{'method.pool_ratio': 3})
    held_out = read_image_ids(folder.held_out)
    assert len(held_out) == 1 and set(held_out) == set(SEEN['held out'])
    report = json.loads(folder.metrics.read_text())['discriminator']
    assert report['n_held_out'] == 1
    seen, pool = read_image_ids(folder.trained_on), read_image_ids(folder.pool)
    assert report['n_unseen'] == len(pool) - len(seen) and set(seen) <= set(pool)
    # Two passes over the labelled images see 16 pool images of the 24 they may.
    assert len(seen) == 16
    in_batches = {i for batch in SEEN['batches'] for i in batch}
    assert set(seen) == in_batches & set(pool)


class Stopped(BaseException):
    pass


@pytest.fixture
def stop_at(monkeypatch):
    def arrange(iteration):
        real = StageTrainLoop.run_iter

        def run_iter(self, batch):
            if self._iter == iteration:
                monkeypatch.setattr(StageTrainLoop, 'run_iter', real)
                raise Stopped
            return real(self, batch)

        monkeypatch.setattr(StageTrainLoop, 'run_iter', run_iter)

    return arrange


def every(count: int) -> dict:
    hook = dict(type='tjls_mm.StageCheckpointHook', interval=count, _delete_=True)
    return {'default_hooks.checkpoint': hook}


def test_a_stop_repeats_no_iteration_that_was_saved_and_keeps_state_of_hooks(
    run, stop_at
):
    stop_at(3)
    with pytest.raises(Stopped):
        run(**every(2))
    folder = run(**every(2))
    assert len(SEEN['turns']) == 2, 'iterations 3 and 4 of 4'
    assert SEEN['count'] == 4, 'the hook went on counting'
    assert torch.load(folder.model, weights_only=True)['witness'] == 4


def test_the_newest_state_is_the_one_of_the_most_iterations(tmp_path):
    folder = StageFolder(tmp_path)
    for iteration in (9, 10, 2):
        folder.checkpoint(iteration).touch()
    assert [p.stem for p in folder.checkpoints()] == ['iter_2', 'iter_9', 'iter_10']


def test_state_of_a_hook_that_would_run_code_is_refused(run):
    with pytest.raises(InputError, match="object under 'witness'.*tensors"):
        run(custom_hooks=[dict(type='tjls_mm.Witness', bad_state=True)])


EMA = dict(type='EMAHook', momentum=0.3, update_buffers=True)


@pytest.mark.parametrize('stopped', [False, True])
def test_what_is_saved_evaluated_and_scored_is_the_average(
    run, stop_at, tmp_path, stopped
):
    plain = run(work_dir=tmp_path / 'plain')
    hooks = [EMA, dict(type='tjls_mm.Witness')]
    options = dict(custom_hooks=hooks, **every(2), **{'train_cfg.val_interval': 1})
    whole = run(work_dir=tmp_path / 'ema', **options)
    if stopped:
        stop_at(3)
        with pytest.raises(Stopped):
            run(work_dir=tmp_path / 'again', **options)
        again = run(work_dir=tmp_path / 'again', **options)
        assert again.model.read_bytes() == whole.model.read_bytes()
        assert again.selection.read_bytes() == whole.selection.read_bytes()
        return
    raw, average = (
        torch.load(f.model, weights_only=True)['state_dict'] for f in (plain, whole)
    )
    assert raw.keys() == average.keys()
    name = 'backbone.conv1.weight'
    assert not torch.equal(raw[name], average[name])
    assert_steps_run_from_the_weights(whole)


def assert_steps_run_from_the_weights(folder: StageFolder) -> None:
    """What evaluation and scoring gave in memory they give from model.pth."""
    cfg = Config.fromfile(folder.config)
    cfg.work_dir = str(folder.path / 'check')
    cfg.load_from = str(folder.model)
    for name in ('train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler'):
        cfg[name] = None
    cfg.custom_hooks, cfg.auto_scale_lr = [], None
    cfg.visualizer.name = cfg.experiment_name = 'check'
    runner = Runner.from_cfg(cfg)
    metrics = runner.val()
    import json

    recorded = json.loads(folder.metrics.read_text())['metrics']
    assert recorded == {k: float(v) for k, v in metrics.items()}
    shutil.rmtree(cfg.work_dir)


def test_the_bank_is_that_of_the_weights_it_is_saved_with(run):
    from mmengine.dataset import pseudo_collate
    from torch.utils.data import DataLoader

    from tjls_mm.models import fill_context_banks
    from tjls_mm.registry import DATASETS, MODELS

    folder = run(**{'train_cfg.val_interval': 1})  # it was filled before, too
    cfg = Config.fromfile(folder.config)
    model = MODELS.build(cfg.model)
    saved = torch.load(folder.model, weights_only=True)['state_dict']
    model.load_state_dict(saved)
    dataset = DATASETS.build(
        {**cfg.score_dataloader.dataset, 'ann_file': str(folder.bank)}
    )
    fill_context_banks(model, DataLoader(dataset, 8, collate_fn=pseudo_collate))
    for key, value in model.state_dict().items():
        if 'banks' in key:
            assert value.shape[0] == 7
            torch.testing.assert_close(value, saved[key])
