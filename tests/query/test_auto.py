"""The default strategy: which rule it is, and Random where nothing speaks."""

from dataclasses import replace

import numpy as np
import pytest
from conftest import make_classifier_config
from test_box_rules import make_boxes, make_labelled, make_pool

from tjls_mm.active.plan import TrialPlan
from tjls_mm.active.trial import run_stages
from tjls_mm.errors import InputError
from tjls_mm.outputs import Outputs
from tjls_mm.query import (
    QUERIES,
    Auto,
    ClassBalanced,
    Random,
    UHerding,
    WithControl,
    check_selection,
)
from tjls_mm.query.auto import RULES, RULES_WITH_FEATURES
from tjls_mm.query.parts import BoxScore
from tjls_mm.registry import build_own
from tjls_mm.stage_folder import TrialFolder

COUNTS = [3, 0, 5, 1, 2, 0, 7, 4, 2, 1, 3, 6]
NOTHING = Outputs.from_arrays([], {})


def select(rule, pool, labelled, budget=5, seed=3):
    answer = rule.select(pool, labelled, budget, seed)
    check_selection(answer, len(pool.image_ids), budget, 'auto')
    return answer


def classifier(p: np.ndarray, seed: int = 0) -> Outputs:
    rng = np.random.default_rng(seed)
    feature = np.float32(rng.normal(size=(len(p), 6)))
    arrays = {'probability': np.float32(p), 'feature': feature}
    ids = [f'{seed}/{i:03d}' for i in range(len(p))]
    counts = np.eye(p.shape[1], dtype=np.int32)[p.argmax(1)]
    arrays |= {'label_count': counts, 'pretrained_feature': feature}
    return Outputs.from_arrays(ids, arrays)


def drawn(n_images: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(3), n_images)


def is_random(answer, pool, budget=5, seed=3) -> bool:
    expected = Random().select(pool, NOTHING, budget, seed)
    return answer.rows.tolist() == expected.tolist()


def test_every_rule_of_the_tables_can_be_built():
    for table in (RULES, RULES_WITH_FEATURES):
        assert set(table) == {'detection', 'classification'}
    for task, config in RULES.items():
        needs = Auto(task).needs
        assert needs == build_own(QUERIES, config).needs
        assert 'pretrained_feature' not in (*needs.pool, *needs.labelled)


@pytest.mark.parametrize('task', RULES)
def test_where_the_score_tells_something_it_is_the_rule(task):
    labelled = make_labelled(make_boxes([2, 0, 3], seed=1))
    pool = make_pool(make_boxes(COUNTS))
    if task == 'classification':
        pool, labelled = classifier(drawn(40)), classifier(drawn(10), 1)
    answer = select(Auto(task), pool, labelled)
    expected = build_own(QUERIES, RULES[task]).select(pool, labelled, 5, 3)
    assert answer.rows.tolist() == expected.rows.tolist()
    assert not is_random(answer, pool)
    assert not answer.columns['fallback'].any()
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(answer.columns[name], column)
    assert answer.note == RULES[task]['type']


def flat_detections() -> dict[str, Outputs]:
    same = make_boxes([1] * 12)
    first = {
        name: np.repeat(getattr(same, name)[:1], 12, axis=0)
        for name in ('xyxy', 'score', 'label', 'probability', 'prior')
    }
    low = make_boxes(COUNTS)
    return {
        'none': make_pool(make_boxes([0] * 12)),
        'below the score that counts': make_pool(
            replace(low, score=np.full_like(low.score, 0.04))
        ),
        'the same of all': make_pool(replace(same, **first)),
    }


@pytest.mark.parametrize('case', flat_detections())
@pytest.mark.parametrize('control', [0.0, 0.4])
def test_without_detections_it_is_random(case, control):
    pool = flat_detections()[case]
    for labelled in (make_labelled(make_boxes([2, 3])), NOTHING):
        answer = select(Auto('detection', control=control), pool, labelled)
        assert is_random(answer, pool)
        assert (answer.columns['fallback'] == 1).all()
        assert answer.note.startswith('Random: ClassBalanced finds no image')
        if control:
            uniform = np.flatnonzero(answer.columns['control'])
            assert sorted(uniform) == sorted(answer.rows[:2])


def test_the_pool_is_scored_once(monkeypatch):
    calls, real = [], BoxScore.__call__

    def score(self, pool, labelled):
        calls.append(pool)
        return real(self, pool, labelled)

    pool, labelled = make_pool(make_boxes(COUNTS)), make_labelled(make_boxes([2, 3]))
    expected = build_own(QUERIES, RULES['detection']).select(pool, labelled, 5, 3)
    monkeypatch.setattr(BoxScore, '__call__', score)
    answer = select(Auto('detection'), pool, labelled)
    assert len(calls) == 1
    assert answer.rows.tolist() == expected.rows.tolist()
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(answer.columns[name], column)


def test_one_detection_is_a_difference():
    counts = [0] * 12
    counts[7] = 1
    pool = make_pool(make_boxes(counts))
    answer = select(Auto('detection'), pool, make_labelled(make_boxes([2])))
    assert answer.rows[0] == 7 and not answer.columns['fallback'].any()


@pytest.mark.parametrize(
    'row', [[1 / 3, 1 / 3, 1 / 3], [0.9, 0.05, 0.05], [1.0, 0.0, 0.0]]
)
def test_a_classifier_that_says_one_thing_of_everything_leaves_it_to_chance(row):
    noise = np.random.default_rng(0).normal(size=(40, 3)) * 1e-8
    pool, labelled = classifier(np.array(row) + noise), classifier(drawn(9), 1)
    answer = select(Auto('classification'), pool, labelled)
    assert is_random(answer, pool) and answer.columns['fallback'].all()
    p = np.tile(row, (40, 1))
    p[5] = [0.4, 0.5, 0.1]
    pool = classifier(p)
    answer = select(Auto('classification'), pool, labelled)
    assert not answer.columns['fallback'].any()


def test_a_probe_that_knows_nothing_leaves_it_to_chance(monkeypatch):
    balanced = dict(
        type='Composition',
        score=dict(type='ProbeScore'),
        balance=dict(type='ClassBalance'),
    )
    margin = dict(type='WithProbe', query=dict(type='Margin'))
    pool, some = classifier(drawn(40)), classifier(drawn(9), 1)
    for rule in (balanced, margin):
        rules = {'classification': rule}
        monkeypatch.setattr('tjls_mm.query.auto.RULES_WITH_FEATURES', rules)
        auto = Auto('classification', features=True)
        none = {'label_count': np.zeros((0, 3), np.int32)}
        unlabelled = Outputs.from_arrays([], none)
        assert is_random(select(auto, pool, unlabelled), pool)
        answer = select(auto, pool, some)
        expected = build_own(QUERIES, rule).select(pool, some, 5, 3)
        assert answer.rows.tolist() == expected.rows.tolist()


def test_a_control_share_counts_in_the_balance():
    pool = make_pool(make_boxes(COUNTS))
    labelled = make_labelled(make_boxes([2, 0, 3], seed=1))
    answer = select(Auto('detection', control=0.4), pool, labelled)
    expected = ClassBalanced(gamma=0.5, control=0.4).select(pool, labelled, 5, 3)
    assert answer.rows.tolist() == expected.rows.tolist()
    pool, labelled = classifier(drawn(40)), classifier(drawn(9), 1)
    answer = select(Auto('classification', control=0.4), pool, labelled)
    wrapped = WithControl(dict(type='UHerding'), 0.4)
    expected = wrapped.select(pool, labelled, 5, 3)
    assert answer.rows.tolist() == expected.rows.tolist()
    assert answer.columns['control'].sum() == 2


def test_the_task_must_be_known():
    with pytest.raises(InputError, match='does not know its task'):
        Auto().select(classifier(drawn(9)), NOTHING, 2, 0)
    for settings in (dict(task='segmentation'), dict(control=2)):
        with pytest.raises(InputError, match='must be'):
            Auto(**settings)
    told = Auto(control=0.1).for_task('classification', True)
    assert (told.task, told.features, told.control) == ('classification', True, 0.1)
    assert Auto('detection').for_task('classification', False).task == 'detection'
    rule = UHerding()
    assert rule.for_task('detection', False) is rule
    wrapped = WithControl(dict(type='Auto')).for_task('classification', False)
    assert wrapped.needs.pool == UHerding().needs.pool
    pool, labelled = classifier(drawn(40)), classifier(drawn(9), 1)
    assert select(wrapped, pool, labelled).note.startswith('UHerding')


AUTO = dict(type='tjls_mm.Auto')


def test_a_plain_config_of_it_is_for_detectors(tiny_config):
    cfg = tiny_config('demo_random')
    cfg.method.query = dict(AUTO)
    query = TrialPlan(cfg).query
    assert query.task == 'detection' and not query.features
    assert query.needs == ClassBalanced().needs
    run_stages(cfg)
    header, *rows = TrialFolder(cfg.work_dir).stage(0).selection.read_text().split()
    assert 'fallback' in header.split(',') and len(rows) > 8


def test_and_for_classifiers(class_folders, tmp_path):
    cfg = make_classifier_config(class_folders, tmp_path / 'work', 'random')
    cfg.method.query = dict(AUTO)
    query = TrialPlan(cfg).query
    assert query.task == 'classification'
    assert set(query.needs.pool) == set(UHerding().needs.pool)
    run_stages(cfg)
    stage = TrialFolder(cfg.work_dir).stage(0)
    header, *rows = stage.selection.read_text().split()
    place = header.split(',').index('fallback')
    assert {row.split(',')[place] for row in rows} == {'0'}
