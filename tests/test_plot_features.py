"""Pictures of features: which images, the same twice, right classes, refusals."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import CLASSES, load_tool, make_classifier_config
from mmengine.config import Config
from mmengine.registry import DefaultScope
from PIL import Image
from tjls_mm.active.stages import run_stages

from tjls_mm.active.feature_report import choose_classes
from tjls_mm.active.features import (
    draw_subsample,
    gather_features,
    neighbour_agreement,
    read_stage,
)
from tjls_mm.errors import InputError
from tjls_mm.image_ids import read_image_ids


@pytest.fixture(scope='module')
def trials(class_folders, tmp_path_factory) -> tuple[str, str]:
    """Work dirs of two trials, with and without a discriminator: 64 pool images."""
    root = tmp_path_factory.mktemp('trials')
    short = {'train_cfg.max_epochs': 1, 'param_scheduler.0.total_steps': 1}
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        for method in ('tjls', 'random'):
            cfg = make_classifier_config(class_folders, root / method, method, **short)
            run_stages(cfg)
    return str(root / 'tjls'), str(root / 'random')


@pytest.fixture(scope='module')
def picture(trials, tmp_path_factory) -> Path:
    """A picture of both trials, 40 images each at most."""
    out = tmp_path_factory.mktemp('picture') / 'features.png'
    assert run(*trials, '--images', '40', '--out', str(out)) == 0
    return out


def run(*arguments: str) -> int:
    return load_tool('plot_features').main(arguments)


def read_rows(picture: Path) -> list[dict]:
    with open(picture.with_suffix('.csv'), newline='') as file:
        return list(csv.DictReader(file))


def test_rows_tell_class_and_selection(trials, picture):
    rows = read_rows(picture)
    assert list(rows[0]) == ['trial', 'image_id', 'x', 'y', 'class', 'selected']
    assert {row['trial'] for row in rows} == {'tjls', 'random'}
    for work_dir in map(Path, trials):
        own = [row for row in rows if row['trial'] == work_dir.name]
        ids = [row['image_id'] for row in own]
        stage = work_dir / 'stage_00'
        selected = set(read_image_ids(stage / 'selected.txt'))
        assert set(ids) <= set(read_image_ids(stage / 'pool.txt'))
        assert len(set(ids)) == len(ids) and 30 <= len(ids) <= 40
        # All 8 selected images fit into the quarter that is theirs.
        assert {i for i, r in zip(ids, own, strict=True) if r['selected'] == '1'} == (
            selected
        )
        assert all(row['class'] == row['image_id'].split('/')[1] for row in own)
    assert Image.open(picture).size[0] > 2 * 600


def test_the_same_twice_and_whatever_else_is_drawn(trials, picture, tmp_path):
    out = tmp_path / 'again.png'
    assert run(trials[1], '--images', '40', '--out', str(out)) == 0
    lines = picture.with_suffix('.csv').read_text().splitlines(keepends=True)
    expected = [line for line in lines if line.startswith(('trial,', 'random,'))]
    assert out.with_suffix('.csv').read_text() == ''.join(expected)


def test_another_seed_draws_other_images(trials, picture, tmp_path):
    out = tmp_path / 'other.png'
    assert run(trials[1], '--images', '40', '--seed', '1', '--out', str(out)) == 0
    before = {r['image_id'] for r in read_rows(picture) if r['trial'] == 'random'}
    assert {r['image_id'] for r in read_rows(out)} != before


def test_lines_say_what_is_shown_and_a_lowered_perplexity(trials, tmp_path, capsys):
    out = tmp_path / 'all.png'
    assert run(trials[0], '--out', str(out), '--classes', '2') == 0
    printed = capsys.readouterr().out
    assert 'tjls | 16 labelled, accuracy/top1 ' in printed
    assert 'shown: 8 of 8 selected, 56 of 56 other pool images' in printed
    assert 'perplexity 21 in place of 30, there are 64 images' in printed
    assert {row['class'] for row in read_rows(out)} == set(CLASSES)


def test_the_subset_is_shared_as_far_as_pools_agree():
    ids = [f'train/{i:03d}' for i in range(400)]
    drawn, others = draw_subsample(ids, ids[:10], 80, seed=0)
    assert len(drawn) == 60 and len(set(drawn + others)) == len(drawn) + len(others)
    assert set(ids[:10]) <= set(drawn + others) <= set(ids)
    # Neither what was selected nor the order of the pool decides.
    assert draw_subsample(ids[::-1], ids[100:200], 80, seed=0)[0] == drawn
    # Many selected images are sampled too.
    _, others = draw_subsample(ids, ids[100:200], 80, seed=0)
    assert len(others) <= 20
    # A pool that lacks a tenth of the images.
    later, _ = draw_subsample(ids[40:], ids[:0], 80, seed=0)
    assert set(drawn) & set(ids[40:]) <= set(later)
    with pytest.raises(InputError, match='at least 4'):
        draw_subsample(ids, ids[:10], 3, seed=0)


def test_features_do_not_depend_on_the_other_images(trials):
    stage = read_stage(trials[0], 0)
    ids = stage.pool[:20]
    together = gather_features(stage, ids)
    assert together.shape == (20, 64)
    assert np.array_equal(gather_features(stage, ids[7:8])[0], together[7])


def test_neighbours_are_drawn_images_other_than_oneself():
    labels = np.repeat([0, 1], 20)
    features = np.random.default_rng(0).normal(labels[:, None] * 100.0, 1, (40, 3))
    assert np.all(neighbour_agreement(features, labels, 40) == 1)
    assert np.all(neighbour_agreement(features, np.arange(40), 40) == 0)
    # Only the first blob was drawn: the others find no image of their class.
    assert np.array_equal(neighbour_agreement(features, labels, 20), 1 - labels)


def test_colours_for_at_most_twenty_classes():
    assert [choose_classes(k, None) for k in (4, 20, 100)] == [4, 20, 10]
    assert choose_classes(100, 15) == 15 and choose_classes(4, 15) == 4
    with pytest.raises(InputError, match='1 to 20, got 21'):
        choose_classes(100, 21)


def changed_copy(work_dir: str, folder: Path, **settings) -> str:
    """A copy of a trial whose stage 0 has other settings; dicts are replaced."""
    shutil.copytree(work_dir, folder)
    path = folder / 'stage_00' / 'config.py'
    cfg = Config.fromfile(path)
    for key, value in settings.items():
        whole = {**value, '_delete_': True} if isinstance(value, dict) else value
        cfg.merge_from_dict({key: whole})
    cfg.dump(path)
    return str(folder)


def test_refusals_name_the_trial_and_draw_nothing(trials, tmp_path, capsys):
    tjls, random = trials
    unfinished = shutil.copytree(tjls, tmp_path / 'unfinished')
    state = unfinished / 'al_state.json'
    state.write_text(state.read_text().replace('"complete"', '"running"'))
    damaged = shutil.copytree(tjls, tmp_path / 'damaged')
    (damaged / 'al_state.json').write_text('{')
    weightless = shutil.copytree(tjls, tmp_path / 'weightless')
    (weightless / 'stage_00' / 'model.pth').unlink()
    same_name = shutil.copytree(tjls, tmp_path / 'other' / 'tjls')
    head = dict(type='LinearClsHead', num_classes=4, in_channels=64)
    plain = changed_copy(random, tmp_path / 'plain', **{'model.head': head})
    classes = {'data_source.classes': CLASSES[::-1]}
    reversed_classes = changed_copy(tjls, tmp_path / 'reversed', **classes)
    voc = dict(
        type='tjls_mm.VOCFiles', data_root='voc', pool_sets=['train'], test_sets=['val']
    )
    detector = changed_copy(tjls, tmp_path / 'detector', data_source=voc)
    out = tmp_path / 'features.png'
    for arguments, message in (
        ([str(tmp_path / 'nowhere')], 'expected the work dir of a trial'),
        ([str(damaged)], 'al_state.json cannot be read'),
        ([str(unfinished)], 'stage 0 is not complete'),
        ([tjls, '--stage', '2'], 'stage 2 is not complete, 2 stages'),
        ([tjls, '--stage', '1'], 'the last stage of a trial selects nothing'),
        ([str(weightless)], 'model.pth is not a readable checkpoint'),
        ([tjls, str(same_name)], 'two trials are called tjls'),
        ([tjls, reversed_classes], 'other classes than'),
        ([detector], 'tjls_mm.VOCFiles gives an image no class'),
        ([plain], 'tjls_mm.JointClsHead'),
        ([tjls, '--images', '3'], 'Asked to show 3 of a pool of 64 images'),
        ([tjls, '--perplexity', '0'], '--perplexity must be above 0, got 0.0'),
        ([tjls, '--classes', '0'], '--classes must be 1 to 20, got 0'),
        ([tjls, '--out', 'features.csv'], '--out must end in .png'),
    ):
        assert run('--out', str(out), *arguments) == 1
        error = capsys.readouterr().err
        assert error.startswith('ERROR: ') and message in error, (arguments, error)
    assert not out.exists() and not out.with_suffix('.csv').exists()
