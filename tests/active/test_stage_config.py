"""Budgets and the config of a stage."""

import copy

import pytest

from tjls_mm.active.budgets import expand_budgets, fit_budgets, image_count
from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.stage_config import StageInputs
from tjls_mm.errors import InputError
from tjls_mm.stage_folder import StageFolder


def test_budgets():
    assert expand_budgets(100, 20, 3) == [20, 20]
    assert expand_budgets(100, 0.05, 3) == [5, 5]
    assert expand_budgets(100, [1, 2], 3) == [1, 2]
    assert expand_budgets(100, 1, 1) == []
    assert fit_budgets(45, 10, [20, 20], allow_short_stage=True) == [20, 15]
    assert fit_budgets(48, 14, [34], done=1) == [34]
    assert image_count(1.0, 50, 'initial') == 50


def test_too_many_stages_says_how_many_fit():
    with pytest.raises(InputError, match='2 stages fit, or 3 with a last selection'):
        fit_budgets(45, 10, [20, 20])
    with pytest.raises(InputError, match='2 stages fit. Lower'):
        fit_budgets(30, 10, [20, 20, 20], allow_short_stage=True)
    with pytest.raises(InputError, match='lists 3 budgets; 3 stages'):
        expand_budgets(100, [1, 2, 3], 3)
    for bad in (0, -1, 1.5, True, 'x'):
        with pytest.raises(InputError, match='positive number of images'):
            image_count(bad, 100, 'budget')


@pytest.fixture
def derive(tiny_config, tmp_path):
    def run(cfg, n_labelled=20, world_size=1):
        folder = StageFolder(tmp_path / 'w' / 'stage_01')
        stage = StageInputs(1, folder, n_labelled, 28, tmp_path / 't', world_size)
        return TrialPlan(cfg, world_size).deriver.derive(stage)

    return run


def volume_of(cfg, derived, world_size=1) -> dict:
    return TrialPlan(cfg, world_size).deriver.volume(derived, world_size)


def test_an_epoch_is_one_pass_of_the_task_for_every_method(tiny_config, derive):
    # 20 labelled images, 4 in a batch, 6 epochs: 120 exposures.
    expected = {
        'mixed, joint': (dict(update='joint'), 30),
        'mixed, alternate': (dict(update='alternate'), 60),
        'pure': (dict(composition='pure'), 60),
    }
    six = {'train_cfg.max_epochs': 6, 'param_scheduler.0.total_steps': 6}
    for joint, iterations in expected.values():
        cfg = tiny_config(**six)
        cfg.method.update(joint)
        volume = volume_of(cfg, derive(cfg))
        assert volume['labelled_exposures'] == 120
        assert volume['iterations'] == iterations
        assert volume['task_updates'] == 30
    plain = tiny_config('demo_random', **six)
    volume = volume_of(plain, derive(plain))
    assert volume['labelled_exposures'] == volume['image_passes'] == 120
    assert volume['task_updates'] == 30, 'as many as every other method'


def test_schedules_in_epochs_become_iterations(tiny_config, derive):
    cfg = tiny_config(**{'train_cfg.max_epochs': 6})
    cfg.method['update'] = 'alternate'
    cfg.param_scheduler = [
        dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=3),
        dict(type='MultiStepLR', by_epoch=True, milestones=[2, 4]),
    ]
    schedulers = derive(cfg).param_scheduler
    assert schedulers[0].end == 3
    assert schedulers[1].milestones == [20, 40] and not schedulers[1].by_epoch
    cfg.param_scheduler = [dict(type='ExponentialLR', gamma=0.9)]
    with pytest.raises(InputError, match='by_epoch=False'):
        derive(cfg)


def test_deriving_changes_nothing_it_was_given(tiny_config, derive):
    cfg = tiny_config()
    before = copy.deepcopy(cfg.to_dict())
    derive(cfg)
    assert cfg.to_dict() == before


def test_several_processes_share_the_batch_or_scale_the_rate(tiny_config, derive):
    cfg = tiny_config()
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=4)
    shared = derive(cfg, world_size=2)
    assert shared.train_dataloader.batch_size == 2
    assert shared.model.bottleneck.gather
    deriver = TrialPlan(cfg, 2).deriver
    assert deriver.bank_size(2) == 7
    line = '2 processes share the batch of 4 labelled and 4 pool images: 4 each'
    assert line in deriver.batches(2).describe()
    with pytest.raises(InputError, match='3 processes cannot share'):
        derive(cfg, world_size=3)
    cfg.auto_scale_lr.enable = True
    cfg.param_scheduler = [dict(type='MultiStepLR', milestones=[1])]
    scaled = derive(cfg, world_size=2)
    assert scaled.train_dataloader.batch_size == 4
    line = TrialPlan(cfg, 2).deriver.batches(2).describe()
    assert 'learning rate scaled to it' in line
    assert volume_of(cfg, scaled, 2)['labelled_exposures'] == 40


def test_pure_batches_train_the_discriminator_on_both_kinds(tiny_config, derive):
    cfg = tiny_config()
    cfg.method['composition'] = 'pure'
    cfg.method['update'] = 'alternate'
    (hook,) = [h for h in derive(cfg).custom_hooks if 'Alternating' in h.type]
    assert hook['update'] == 'joint'


def test_total_batch_is_named_once(tiny_config, derive):
    cfg = tiny_config()
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=32)
    with pytest.raises(InputError, match='set both to one number'):
        derive(cfg, world_size=2)
    cfg.auto_scale_lr = None
    assert 'as configured' in TrialPlan(cfg, 2).deriver.batches(2).describe()
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=4)
    with pytest.raises(InputError, match='cannot scale OneCycleLR'):
        derive(cfg, world_size=2)
    assert 'as configured' in TrialPlan(cfg, 1).deriver.batches(1).describe()


def test_channels_cannot_evaluate_by_the_batch(tiny_config, derive):
    cfg = tiny_config()
    cfg.method.bottleneck = dict(
        type='tjls_mm.BatchTransformer', tokens='channels', eval_context='batch'
    )
    with pytest.raises(InputError, match='last batch'):
        derive(cfg)


def test_channels_takes_its_batch_size_from_the_loader(tiny_config, derive):
    tokens = {'method.bottleneck.tokens': 'channels'}
    cfg = derive(tiny_config(**tokens))
    assert cfg.model.bottleneck.batch_size == 8
    with pytest.raises(InputError, match='weights for 16 batch slots'):
        derive(tiny_config(**tokens, **{'method.bottleneck.batch_size': 16}))


def test_the_loop_inserts_what_is_its_own(tiny_config, derive):
    cfg = tiny_config()
    cfg.custom_hooks = [dict(type='NumClassCheckHook')]
    derived = derive(cfg)
    assert [h.type.removeprefix('tjls_mm.') for h in derived.custom_hooks] == [
        'NumClassCheckHook',
        'AlternatingUpdateHook',
        'ContextBankHook',
        'PoolScoringHook',
    ]
    assert derived.train_cfg.type == 'tjls_mm.StageTrainLoop'
    assert derived.train_dataloader.batch_sampler.type == 'tjls_mm.JointBatchSampler'
    assert derived.default_hooks.checkpoint.type == 'tjls_mm.StageCheckpointHook'
    assert derived.val_dataloader.dataset.ann_file == str(
        derived.test_dataloader.dataset.ann_file
    )
    plain = derive(tiny_config('demo_random'))
    assert plain.model == tiny_config('demo_random').model, "mmdet's own learner"
    assert [h.type for h in plain.custom_hooks] == ['NumClassCheckHook']


def test_evaluation_reads_the_test_list_and_no_other(tiny_config, derive, tmp_path):
    derived = derive(tiny_config())
    lists = {
        'train': derived.train_dataloader.dataset.labelled.ann_file,
        'pool': derived.train_dataloader.dataset.pool.ann_file,
        'val': derived.val_dataloader.dataset.ann_file,
        'test': derived.test_dataloader.dataset.ann_file,
        'score': derived.score_dataloader.dataset.ann_file,
    }
    folder = tmp_path / 'w' / 'stage_01'
    assert lists == {
        'train': str(folder / 'labelled.txt'),
        'pool': str(folder / 'pool.txt'),
        'val': str(tmp_path / 't'),
        'test': str(tmp_path / 't'),
        'score': str(folder / 'pool.txt'),
    }


def test_what_a_user_sets_for_a_data_set_wins(tiny_config, derive):
    cfg = tiny_config(**{'val_dataloader.dataset.lazy_init': True})
    assert derive(cfg).val_dataloader.dataset.lazy_init is True


def test_seeds_of_weights_differ_between_stages_and_trials(tiny_config, tmp_path):
    seeds = set()
    for seed in (0, 1):
        deriver = TrialPlan(tiny_config(**{'randomness.seed': seed})).deriver
        for number in (0, 1):
            folder = StageFolder(tmp_path / 'w' / f'stage_{number:02d}')
            stage = StageInputs(number, folder, 20, 28, tmp_path / 't')
            seeds.add(deriver.derive(stage).randomness.seed)
    assert len(seeds) == 4


@pytest.mark.parametrize('epochs, how', [(1, 'is cut off'), (3, 'ends after')])
def test_a_cycle_lasts_as_long_as_training(epochs, how, tiny_config, derive):
    with pytest.raises(InputError, match=f'OneCycleLR {how}.*set its total_steps'):
        derive(tiny_config(**{'train_cfg.max_epochs': epochs}))
    both = {'train_cfg.max_epochs': epochs, 'param_scheduler.0.total_steps': epochs}
    derive(tiny_config(**both))


def test_epochs_and_iterations_exclude_each_other(tiny_config, derive):
    cfg = tiny_config(**{'train_cfg.max_iters': 10})
    cfg.param_scheduler = []
    with pytest.raises(InputError, match='max_epochs .* or max_iters'):
        derive(cfg)
    cfg.train_cfg.pop('max_epochs')
    assert derive(cfg).train_cfg.max_iters == 10
