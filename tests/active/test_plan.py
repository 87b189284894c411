"""Budgets and the config of a stage."""

import copy

import pytest

from tjls_mm.active.plan import image_count, plan_budgets
from tjls_mm.active.stage_config import (
    StageInputs,
    bank_size,
    derive_stage_config,
    find_configs,
    plan_batches,
)
from tjls_mm.errors import InputError
from tjls_mm.registry import IMAGE_SOURCES, build_own


def test_budgets():
    assert plan_budgets(100, 10, 20, 3) == [20, 20]
    assert plan_budgets(100, 10, 0.05, 3) == [5, 5]
    assert plan_budgets(100, 10, [1, 2], 3) == [1, 2]
    assert plan_budgets(45, 10, 20, 3, allow_short_stage=True) == [20, 15]
    assert plan_budgets(100, 100, 1, 1) == []
    assert image_count(1.0, 50, 'initial') == 50


def test_too_many_stages_says_how_many_fit():
    with pytest.raises(InputError, match='2 stages fit, or 3 with a last selection'):
        plan_budgets(45, 10, 20, 3)
    with pytest.raises(InputError, match='2 stages fit. Lower'):
        plan_budgets(30, 10, 20, 4, allow_short_stage=True)
    with pytest.raises(InputError, match='lists 3 budgets; 3 stages'):
        plan_budgets(100, 10, [1, 2, 3], 3)
    for bad in (0, -1, 1.5, True, 'x'):
        with pytest.raises(InputError, match='positive number of images'):
            image_count(bad, 100, 'budget')


@pytest.fixture
def derive(tiny_config, tmp_path):
    def run(cfg, n_labelled=20, world_size=1):
        source = build_own(IMAGE_SOURCES, cfg.data_source)
        stage = StageInputs(
            1, tmp_path / 'w' / 'stage_01', n_labelled, 28, tmp_path / 't', world_size
        )
        return derive_stage_config(cfg, source, stage)

    return run


def test_an_epoch_is_one_pass_of_the_task_for_every_method(tiny_config, derive):
    # 20 labelled images, batches of 8, 6 epochs: 120 exposures.
    expected = {
        'mixed, joint': (dict(update='joint'), 30),
        'mixed, alternate': (dict(update='alternate'), 60),
        'pure': (dict(composition='pure'), 30),
    }
    six = {'train_cfg.max_epochs': 6, 'param_scheduler.0.total_steps': 6}
    for joint, iterations in expected.values():
        cfg = tiny_config(**six)
        cfg.active_learning.joint = joint
        volume = derive(cfg).active_learning.volume
        assert volume.labelled_exposures == 120
        assert volume.iterations == iterations
    plain = tiny_config('demo_random', **six)
    volume = derive(plain).active_learning.volume
    assert volume.labelled_exposures == 120 and volume.image_passes == 120


def test_schedules_in_epochs_become_iterations(tiny_config, derive):
    cfg = tiny_config(**{'train_cfg.max_epochs': 6})
    cfg.active_learning.joint['update'] = 'alternate'
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
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=8)
    shared = derive(cfg, world_size=2)
    assert shared.train_dataloader.batch_size == 4
    assert find_configs(shared.model, 'bottleneck')[0].gather
    assert bank_size(shared) == 7
    assert '2 processes share the batch of 8' in plan_batches(cfg, 2).describe(2)
    with pytest.raises(InputError, match='3 processes cannot share'):
        derive(cfg, world_size=3)
    with pytest.raises(InputError, match='fewer than 8 processes'):
        derive(cfg, world_size=8)
    cfg.auto_scale_lr.enable = True
    cfg.param_scheduler = [dict(type='MultiStepLR', milestones=[1])]
    scaled = derive(cfg, world_size=2)
    assert scaled.train_dataloader.batch_size == 8
    assert 'learning rate scaled to it' in plan_batches(cfg, 2).describe(2)
    volume = derive(cfg, world_size=2).active_learning.volume
    assert volume.labelled_exposures == 40


def test_pure_batches_train_the_discriminator_on_both_kinds(tiny_config, derive):
    cfg = tiny_config()
    cfg.active_learning.joint = dict(composition='pure', update='alternate')
    (hook,) = [h for h in derive(cfg).custom_hooks if 'Alternating' in h.type]
    assert hook['update'] == 'joint'


def test_total_batch_is_named_once(tiny_config, derive):
    cfg = tiny_config()
    cfg.auto_scale_lr = dict(enable=False, base_batch_size=32)
    with pytest.raises(InputError, match='set both to one number'):
        derive(cfg, world_size=2)
    cfg.auto_scale_lr = None
    assert 'as configured' in plan_batches(cfg, 2).describe(2)
    cfg.auto_scale_lr = dict(enable=True, base_batch_size=8)
    with pytest.raises(InputError, match='cannot scale OneCycleLR'):
        derive(cfg, world_size=2)
    assert 'as configured' in plan_batches(cfg, 1).describe(1)


def test_channels_cannot_evaluate_by_the_batch(tiny_config, derive):
    bottleneck = dict(
        type='tjls_mm.BatchTransformer', tokens='channels', eval_context='batch'
    )
    cfg = tiny_config()
    cfg.model.bbox_head.bottleneck = bottleneck
    with pytest.raises(InputError, match='last batch'):
        derive(cfg)


def test_channels_takes_its_batch_size_from_the_loader(tiny_config, derive):
    tokens = {'model.bbox_head.bottleneck.tokens': 'channels'}
    cfg = derive(tiny_config(**tokens))
    assert cfg.model.bbox_head.bottleneck.batch_size == 8
    with pytest.raises(InputError, match='weights for 16 batch slots'):
        derive(tiny_config(**tokens, **{'model.bbox_head.bottleneck.batch_size': 16}))


def test_replaced_hooks_are_missed(tiny_config, derive):
    cfg = tiny_config()
    cfg.custom_hooks = [dict(type='NumClassCheckHook')]
    with pytest.raises(InputError, match='custom_hooks lacks'):
        derive(cfg)


def test_what_a_user_sets_for_a_data_set_wins(tiny_config, derive):
    cfg = tiny_config(**{'train_dataloader.dataset.labelled.img_suffix': '.png'})
    derived = derive(cfg).train_dataloader.dataset
    assert derived.labelled.img_suffix == '.png'
    assert derived.labelled.type == 'tjls_mm.VOCImageSet'
    assert derived.pool.path_template.endswith('.jpg')


def test_epochs_and_iterations_exclude_each_other(tiny_config, derive):
    cfg = tiny_config(**{'train_cfg.max_iters': 10})
    with pytest.raises(InputError, match='max_epochs .* or max_iters'):
        derive(cfg)
    cfg.train_cfg.pop('max_epochs')
    assert derive(cfg).train_cfg.max_iters == 10
