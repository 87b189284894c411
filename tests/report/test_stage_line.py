"""Lines, rows and files of a trial."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tjls_mm.errors import InputError
from tjls_mm.outputs import Boxes, Outputs
from tjls_mm.report.curves import draw_curves, write_report
from tjls_mm.report.gallery import draw_gallery
from tjls_mm.report.picks import predicted_marks, reasons_of
from tjls_mm.report.stage_line import (
    leaning_class,
    print_table,
    stage_line,
    stage_row,
    stage_warnings,
)
from tjls_mm.stage_folder import TrialFolder


def record(**changed) -> dict:
    """``metrics.json`` of a stage."""
    return {
        'n_labelled': 100,
        'n_boxes': 250,
        'metrics': {'pascal_voc/mAP': 0.25, 'pascal_voc/AP50': 0.25},
        'seconds': {'prepare': 0.5, 'train': 61.04, 'evaluate': 2.0, 'select': 0.1},
        **changed,
    }


def discriminator(auc, auc_chance_error, **counts) -> dict:
    counts = {'n_held_out': 40, 'n_unseen': 900, **counts}
    report = dict(loss=0.6, auc=auc, auc_chance_error=auc_chance_error, **counts)
    return {'discriminator': report}


def test_a_row_and_a_line_tell_the_first_metric_and_the_seconds_of_steps():
    row = stage_row(3, record())
    assert list(row)[:4] == ['stage', 'n_labelled', 'n_boxes', 'pascal_voc/mAP']
    # A step that did not run has no seconds, which is not the same as none.
    assert row['train_s'] == 61.04 and row['gather_s'] is None
    line = stage_line(3, 4, record(**discriminator(0.81, 0.05)))
    assert line == (
        'stage 4/4 | 100 labelled (250 boxes) | pascal_voc/mAP 0.2500 | '
        'train 61.0s evaluate 2.0s select 0.1s | discriminator AUC 0.81'
    )


@pytest.mark.parametrize(
    'auc, error, warned',
    [
        (0.54, 0.001, True),  # however exactly it was measured
        (0.56, 0.001, False),
        (0.60, 0.07, True),  # 1.64 standard errors are 0.11
        (0.62, 0.07, False),
        (0.30, 0.01, True),
        (None, None, False),  # no image was held out
    ],
)
def test_a_discriminator_near_chance_is_warned_of(auc, error, warned):
    found = record(**discriminator(auc, error, n_held_out=7))
    warnings = stage_warnings(found)
    assert bool(warnings) == warned
    assert all('on 7 held-out and 900 unseen images' in w for w in warnings)
    assert ('WARNING' in stage_line(0, 1, found)) == warned


def test_picks_that_lean_to_a_class_or_to_unseen_images_are_warned_of():
    assert leaning_class({'a': 8, 'b': 2}, {'a': 30, 'b': 70})[0] == 'a'
    assert leaning_class({'a': 5, 'b': 5}, {'a': 30, 'b': 70}) is None
    assert leaning_class({}, {'a': 1}) is None
    picks = dict(images={'a': 8, 'b': 2}, trained_on_share=0.1, trained_on_chance=0.5)
    lean, unseen = stage_warnings(record(picks=picks, labelled_images={'b': 5}))
    assert lean == ("picks lean to 'a': 80% of what they show, 0% of what is labelled")
    assert unseen == '10% of the picks were seen in training, 50% by chance'


@pytest.mark.parametrize('spoilt', [[], {}, {'n_labelled': 3}, {'metrics': {}}])
def test_a_record_without_metrics_is_refused_in_words(spoilt):
    for call in (lambda: stage_row(0, spoilt), lambda: stage_line(0, 1, spoilt)):
        with pytest.raises(InputError, match=r"metrics\.json .* holds no 'metrics'"):
            call()


def test_the_report_of_a_trial_reads_back(tmp_path, capsys):
    rows = [stage_row(k, record(n_labelled=100 + k)) for k in range(2)]
    summary = dict(name='demo', seed=0, stages=rows)
    write_report(TrialFolder(tmp_path), summary)
    assert json.loads((tmp_path / 'summary.json').read_text()) == summary
    with open(tmp_path / 'curve.csv', newline='') as file:
        first, second = csv.DictReader(file)
    assert first['train_s'] == '61.04' and first['gather_s'] == ''
    assert second['n_labelled'] == '101'
    assert Image.open(tmp_path / 'curve.png').format == 'PNG'
    print_table('demo', rows)
    assert '0.2500' in capsys.readouterr().out


def test_curves_are_drawn_for_trials_of_one_stage_too(tmp_path):
    rows = [{'stage': 0, 'n_labelled': 5, 'n_boxes': 9, 'mAP': 0.5}]
    draw_curves(tmp_path / 'one.png', {'only': rows})
    assert Image.open(tmp_path / 'one.png').format == 'PNG'


def test_gallery_shows_the_first_picks(tmp_path):
    files = {}
    for i in range(30):
        path = tmp_path / f'{i}.png'
        Image.new('RGB' if i else 'L', (40 + i, 30)).save(path)
        files[f'id{i}'] = str(path)
    ids = list(files)
    draw_gallery(tmp_path / 'gallery.png', ids, lambda i: Image.open(files[i]))
    assert Image.open(tmp_path / 'gallery.png').size == (6 * 150, 4 * 164)


def test_a_gallery_shows_what_the_learner_sees_and_why(tmp_path):
    ids = ['a', 'b']
    offsets, sides = np.array([0, 2, 2]), np.float32([[0, 0, 20, 10], [5, 5, 9, 9]])
    score, label = np.float32([0.9, 0.1]), np.int32([1, 0])
    boxes = Boxes(offsets, sides, score, label, np.zeros((2, 2), np.float32))
    pool = Outputs.from_arrays(ids, {'boxes': boxes})
    marks = predicted_marks(pool, ('cat', 'dog'), lambda image_id: (40, 20))
    assert marks('a') == [((0, 0, 0.5, 0.5), 1, 'dog')] and marks('b') == []
    # A prior that gives a box per class is one object.
    twice = replace(boxes, score=np.float32([0.9, 0.8]), prior=np.int32([4, 4]))
    of_twice = Outputs.from_arrays(ids, {'boxes': twice})
    marks = predicted_marks(of_twice, ('cat', 'dog'), lambda image_id: (40, 20))
    assert [mark[2] for mark in marks('a')] == ['dog']
    columns = {
        'score': np.array([1.5, 0.25]),
        'class': np.array([1, np.nan]),
        'control': np.array([0, 1]),
    }
    reasons = reasons_of(ids, [0, 1], columns, ('cat', 'dog'))
    assert reasons == {'a': 'dog, score 1.5', 'b': 'control, score 0.25'}
    path, plain = tmp_path / 'gallery.png', tmp_path / 'plain.png'
    white = Image.new('RGB', (40, 20), 'white')
    draw_gallery(path, ids, lambda image_id: white, marks, reasons)
    draw_gallery(plain, ids, lambda image_id: white)
    drawn, blank = (np.asarray(Image.open(p).convert('RGB')) for p in (path, plain))
    # A coloured frame in the first picture alone, and a line more of text.
    assert len(drawn) == len(blank) + 14
    coloured = np.ptp(drawn[:150].astype(int), axis=2) > 50
    assert coloured[:, :150].any() and not coloured[:, 150:].any()


@pytest.mark.parametrize('pull, warned', [(4.5, True), (0.9, False), (None, False)])
def test_a_discriminator_that_pulls_harder_than_the_task_is_warned_of(pull, warned):
    found = stage_warnings(record(**discriminator(0.7, 0.01, pull=pull)))
    assert len(found) == warned
    if warned:
        assert '4.5 times as hard as the task' in found[0]
        assert 'gradient_scale' in found[0]
