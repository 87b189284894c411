"""Pictures of features: which images, the same twice, right classes, refusals."""

import csv
import shutil
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from conftest import load_tool, make_classifier_config, make_config
from mmengine.registry import DefaultScope
from PIL import Image

from tjls_mm.active.trial import run_stages
from tjls_mm.image_ids import read_image_ids
from tjls_mm.stage_folder import TrialFolder

SHORT = {'train_cfg.max_epochs': 1, 'param_scheduler.0.total_steps': 1}


@pytest.fixture(scope='module')
def tool():
    return load_tool('plot_features')


@pytest.fixture(scope='module')
def classifier(class_folders, tmp_path_factory) -> str:
    """Work dir of a trial with 64 images in the pool of its stage 0."""
    work_dir = tmp_path_factory.mktemp('trials') / 'tjls'
    with DefaultScope.overwrite_default_scope('mmpretrain'):
        run_stages(make_classifier_config(class_folders, work_dir, **SHORT))
    return str(work_dir)


@pytest.fixture(scope='module')
def detector(demo_data, tmp_path_factory) -> str:
    """Work dir of a trial of a plain detector, 40 images in the pool of stage 0."""
    work_dir = tmp_path_factory.mktemp('trials') / 'random'
    with DefaultScope.overwrite_default_scope('mmdet'):
        run_stages(make_config(demo_data, work_dir, 'demo_random', **SHORT))
    return str(work_dir)


def draw(tool, out: Path, *arguments: str) -> list[dict]:
    assert tool.main([*arguments, '--out', str(out)]) == 0
    assert Image.open(out).format == 'PNG'
    with open(out.with_suffix('.csv'), newline='') as file:
        return list(csv.DictReader(file))


def test_rows_tell_class_and_selection_of_a_classifier(tool, classifier, tmp_path):
    rows = draw(tool, tmp_path / 'one.png', classifier, '--images', '40')
    stage = TrialFolder(classifier).stage(0)
    ids = [row['image_id'] for row in rows]
    assert set(ids) <= set(read_image_ids(stage.pool))
    assert len(set(ids)) == len(ids) and 30 <= len(ids) <= 40
    # All 8 selected images fit into the quarter that is theirs.
    selected = {row['image_id'] for row in rows if row['selected'] == '1'}
    assert selected == set(read_image_ids(stage.selected))
    assert all(row['class'] == row['image_id'].split('/')[1] for row in rows)
    # The same twice, and other images by another seed.
    assert draw(tool, tmp_path / 'two.png', classifier, '--images', '40') == rows
    arguments = [classifier, '--images', '40', '--seed', '1']
    other = draw(tool, tmp_path / 'three.png', *arguments)
    assert {row['image_id'] for row in other} != set(ids)


def test_a_detectors_images_have_their_most_frequent_class(
    tool, classifier, detector, demo_data, tmp_path
):
    rows = draw(tool, tmp_path / 'both.png', classifier, detector)
    assert Counter(row['trial'] for row in rows) == {classifier: 64, detector: 40}
    for row in rows[64:]:
        part, name = row['image_id'].split('/')
        root = ElementTree.parse(demo_data / part / 'Annotations' / f'{name}.xml')
        counts = Counter(node.text for node in root.iterfind('object/name'))
        assert counts[row['class']] == max(counts.values())
    assert len({(row['x'], row['y']) for row in rows[64:]}) == 40


def test_images_that_nobody_has_labelled_are_grey(
    tool, detector, copied_data, tmp_path
):
    trial = Path(shutil.copytree(detector, tmp_path / 'trial'))
    config = trial / 'stage_00' / 'config.py'
    text = config.read_text()
    (root,) = {line.split("'")[1] for line in text.splitlines() if 'data_root=' in line}
    config.write_text(text.replace(root, str(copied_data)))
    image_id = read_image_ids(trial / 'stage_00' / 'pool.txt')[0]
    (copied_data / image_id.replace('/', '/Annotations/')).with_suffix('.xml').unlink()
    rows = draw(tool, tmp_path / 'grey.png', str(trial))
    assert [row['image_id'] for row in rows if not row['class']] == [image_id]


def test_the_subset_is_shared_as_far_as_pools_agree(tool):
    ids = [f'train/{i:03d}' for i in range(400)]
    shown = tool.draw_subset(ids, {*ids[:10]}, 80, seed=0)
    assert {*ids[:10]} <= {*shown} <= {*ids} and 60 <= len(shown) <= 70
    # Neither what was selected nor the order of the pool decides about the others.
    other = tool.draw_subset(ids[::-1], {*ids[300:]}, 80, seed=0)
    assert {*shown} - {*ids[:10]} <= {*other} and len(other) <= 80
    later = tool.draw_subset(ids[40:], {ids[50]}, 80, seed=0)
    assert {*shown} & {*ids[40:]} <= {*later}


def test_features_are_those_of_the_stage_whatever_else_is_shown(tool, classifier):
    from mmengine.config import Config

    stage = TrialFolder(classifier).stage(0)
    cfg, ids = Config.fromfile(stage.config), read_image_ids(stage.pool)[:20]
    together = tool.gather_features(cfg, stage, ids)
    assert together.shape == (20, 64)
    assert np.array_equal(tool.gather_features(cfg, stage, ids[7:8])[0], together[7])


def test_refusals_are_one_line_and_draw_nothing(tool, classifier, tmp_path, capsys):
    weightless = Path(shutil.copytree(classifier, tmp_path / 'weightless'))
    (weightless / 'stage_00' / 'model.pth').unlink()
    out = tmp_path / 'features.png'
    for arguments, message in (
        ([str(tmp_path / 'nowhere')], 'nowhere/stage_00/selected.txt does not exist'),
        ([classifier, '--stage', '1'], 'stage_01/selected.txt does not exist'),
        ([str(weightless)], 'model.pth'),
        ([classifier, '--images', '3'], 'expected 4 images or more, got 3'),
    ):
        assert tool.main([*arguments, '--out', str(out)]) == 1
        error = capsys.readouterr().err
        assert error.startswith('ERROR: ') and message in error, (arguments, error)
    assert not out.exists() and not out.with_suffix('.csv').exists()
