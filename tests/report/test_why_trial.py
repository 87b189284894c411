"""A trial says why: in its columns, its record, its pictures and its line."""

import csv
import json
from pathlib import Path

import pytest
from conftest import make_classifier_config, make_config
from PIL import Image

from tjls_mm.active.stage import Stage
from tjls_mm.active.trial import run_stages
from tjls_mm.datasets import VOCFiles
from tjls_mm.image_ids import read_image_ids
from tjls_mm.stage_folder import StageFolder, TrialFolder

BALANCED = dict(
    type='tjls_mm.Composition',
    score=dict(type='BoxScore', kind='score'),
    balance=dict(type='ClassBalance'),
    diversity=dict(type='KCenter', features='feature'),
    control=0.5,
)
"""Boxes, features of images, classes and a control."""


def picks_of(folder: StageFolder) -> dict:
    return json.loads(folder.metrics.read_text())['picks']


def rows_of(folder: StageFolder) -> list[dict]:
    with open(folder.selection, newline='', encoding='utf-8') as file:
        return list(csv.DictReader(file))


def everything(work_dir: Path) -> dict:
    """What a stopped and continued trial must reproduce, but for weights."""
    found = {}
    for folder in sorted(work_dir.glob('stage_*')):
        record = json.loads((folder / 'metrics.json').read_text())
        record.pop('seconds')
        found[folder.name] = (
            record,
            *(
                path.read_bytes()
                for pattern in ('*.txt', '*.csv', '*.png', 'annotations.json')
                for path in sorted(folder.glob(pattern))
            ),
        )
    return found


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """Images whose boxes were read, in order."""
    found, instances = [], VOCFiles.instances

    def noted(self, image_id):
        found.append(image_id)
        return instances(self, image_id)

    monkeypatch.setattr(VOCFiles, 'instances', noted)
    return found


class Killed(BaseException):
    """Stands for a kill that no handler catches."""


def test_a_detector_says_why(demo_data, tmp_path, opened, monkeypatch, capsys):
    def config(name):
        cfg = make_config(demo_data, tmp_path / name, 'demo_random')
        cfg.method.query = BALANCED
        return cfg

    run_stages(config('whole'))
    line = next(t for t in capsys.readouterr().out.splitlines() if 'stage 1/2' in t)
    folder = TrialFolder(tmp_path / 'whole').stage(0)
    never = set(read_image_ids(TrialFolder(tmp_path / 'whole').stage(1).pool))
    assert never and not never & set(opened)

    header, *_ = folder.selection.read_text().splitlines()
    added = 'nearest_distance,predicted_class,nearest_labelled'
    assert header.endswith(added) and header.startswith('image_id,rank,score')
    labelled, classes = (
        read_image_ids(folder.labelled),
        ['', *config('x').data_source.classes],
    )
    rows = rows_of(folder)
    for row in rows[:6]:
        assert row['nearest_labelled'] in labelled
        assert 0 <= float(row['nearest_distance']) <= 2
        assert row['predicted_class'] in classes
    assert not any(
        row['nearest_labelled'] or row['nearest_distance'] for row in rows[6:]
    )

    picks = picks_of(folder)
    assert picks['near_duplicates']['hashed'] == 6
    assert picks['near_duplicates']['feature'] == 'feature'
    assert picks['expected'].keys() == picks['pool_expectation'].keys()
    expected = sum(float(row['expected_boxes']) for row in rows[:6])
    assert sum(picks['expected'].values()) == pytest.approx(expected, abs=0.01)
    chosen, control = (picks['control'][key] for key in ('chosen', 'control'))
    assert chosen['images'] == chosen['answered'] == control['images'] == 3
    boxes = 3 * chosen['boxes'] + 3 * control['boxes']
    assert boxes == pytest.approx(sum(picks['boxes'].values()), abs=0.01)
    assert picks['control']['stages_no_better'] in (0, 1)
    assert {'nearest_distance', 'class_entropy', 'mean_score'} <= chosen.keys()
    assert f'| chosen {chosen["boxes"]:.1f} boxes, ' in line
    said = json.loads(folder.asked.read_text())
    assert said['images'] == picks['images'] and 'control' not in said
    for path in (folder.gallery, folder.pick_classes):
        assert Image.open(path).format == 'PNG'

    select = Stage._select

    def killed(self):
        select(self)
        monkeypatch.setattr(Stage, '_select', select)
        raise Killed

    monkeypatch.setattr(Stage, '_select', killed)
    with pytest.raises(Killed):
        run_stages(config('stopped'))
    run_stages(config('stopped'))
    assert everything(tmp_path / 'stopped') == everything(tmp_path / 'whole')


def test_a_classifier_says_why_and_what_control_brings(class_folders, tmp_path, capsys):
    cfg = make_classifier_config(class_folders, tmp_path / 'work', 'random')
    cfg.active_learning.update(stages=3)
    cfg.method.query = dict(
        type='tjls_mm.WithControl', query=dict(type='Margin'), control=0.5
    )
    run_stages(cfg)
    before = 0
    for number in range(2):
        folder = TrialFolder(cfg.work_dir).stage(number)
        picks, rows = picks_of(folder), rows_of(folder)[:8]
        assert sum(picks['expected'].values()) == pytest.approx(8, abs=0.01)
        assert sum(picks['pool_expectation'].values()) == pytest.approx(8, abs=0.01)
        assert all(row['predicted_class'] for row in rows)
        assert 'nearest_labelled' not in rows[0]  # no features were asked for
        groups = picks['control']
        assert groups['chosen']['loss'] > 0 and 'boxes' not in groups['chosen']
        assert 0 <= groups['control']['class_entropy'] <= 2
        uncertain = [groups[k]['mean_score'] for k in ('chosen', 'control')]
        assert uncertain[0] >= uncertain[1]
        stages = groups['stages_no_better']
        assert stages in (0, before + 1)
        before = stages
    lines = [t for t in capsys.readouterr().out.splitlines() if ' | chosen ' in t]
    assert len(lines) == 2 and all(', loss ' in text for text in lines)


def test_a_budget_of_one_and_bare_rows(class_folders, tmp_path, capsys):
    cfg = make_classifier_config(class_folders, tmp_path / 'work', 'random')
    cfg.active_learning.budget = 1
    run_stages(cfg)
    folder = TrialFolder(cfg.work_dir).stage(0)
    assert folder.selection.read_text().splitlines()[0] == 'image_id,rank'
    picks = picks_of(folder)
    assert picks['near_duplicates'] == dict(share=0.0, by_hash=0.0, hashed=1)
    assert picks['count'] == 1 and 'expected' not in picks and 'control' not in picks
    assert folder.pick_classes.exists()  # of what was labelled
    assert 'near-duplicates' not in capsys.readouterr().out


def test_what_is_for_the_eye_stops_no_trial(
    class_folders, tmp_path, monkeypatch, capsys
):
    from tjls_mm.datasets import ImageFolders

    def broken(self, image_id):
        raise OSError('the disk is gone')

    monkeypatch.setattr(ImageFolders, 'open_image', broken)
    cfg = make_classifier_config(class_folders, tmp_path / 'work', 'random')
    run_stages(cfg)
    said = capsys.readouterr().out
    assert 'No thumbnails of picks of stage 0: the disk is gone' in said
    folder = TrialFolder(cfg.work_dir).stage(0)
    assert len(read_image_ids(folder.answered)) == 8 and not folder.gallery.exists()
    assert 'near_duplicates' not in picks_of(folder)
