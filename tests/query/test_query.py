"""Query strategies, and what is written of a selection."""

import csv
import importlib
import math
import random
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from tjls_mm.errors import InputError
from tjls_mm.outputs import Outputs
from tjls_mm.outputs.discriminator_report import discriminator_report
from tjls_mm.query import (
    QUERIES,
    Discriminator,
    Needs,
    Random,
    Selection,
    check_selection,
    select_random,
    write_selection,
)
from tjls_mm.randomness import generator, tie_break
from tjls_mm.registry import build_own

NOTHING = Outputs.from_arrays([], {})


def pool_of(logits: dict[str, float]) -> Outputs:
    ids = sorted(logits)
    return Outputs.from_arrays(ids, {'logit': np.float32([logits[i] for i in ids])})


def pick(strategy, logits: dict[str, float], budget: int, seed: int = 0) -> list[str]:
    pool = pool_of(logits)
    answer = strategy.select(pool, NOTHING, budget, seed)
    rows = check_selection(answer, len(logits), budget, 'x').rows
    return [pool.image_ids[row] for row in rows]


def test_rules():
    logits = {'a': 2.0, 'b': -3.0, 'c': 0.1, 'd': -0.5, 'e': -2.2}
    assert pick(Discriminator(), logits, 2) == ['b', 'e']
    assert pick(Discriminator('uncertain'), logits, 2) == ['c', 'd']
    assert expit(-2.2) == pytest.approx(0.1, abs=0.001)
    assert pick(Discriminator('margin'), logits, 2) == ['e', 'b']
    assert pick(Discriminator('margin', margin=0.88), logits, 1) == ['a']


RULES = {
    'lowest': lambda logit: logit,
    'margin': lambda logit: abs(float(expit(logit)) - 0.1),
    'uncertain': abs,
}


@pytest.mark.parametrize('rule', RULES)
@pytest.mark.parametrize('digits', [0, 1, 7, None])
def test_picks_are_those_of_one_sort_over_all_images(rule, digits):
    rng = np.random.default_rng(digits or 0)
    ids = [f'{i % 7}/{i}' for i in range(500)]
    if digits is None:  # neighbours in float32, whose margins differ in float64 only
        values = np.float32(8) + np.arange(500, dtype=np.float32) * np.float32(2**-20)
    else:
        values = np.float32(rng.normal(size=500).round(digits))
    logits = dict(zip(ids, map(float, values), strict=True))
    key = RULES[rule]
    ranked = sorted(ids, key=lambda i: (key(logits[i]), tie_break(i, 5), i))
    for budget in (1, 60, 500):
        assert pick(Discriminator(rule), logits, budget, 5) == ranked[:budget]


def test_ties_follow_the_seed_and_not_the_id():
    logits = dict.fromkeys((f'{c}/{i}' for c in 'abcd' for i in range(25)), 0.0)
    one, two = (pick(Discriminator(), logits, 20, seed) for seed in (1, 2))
    assert one != two
    assert len({i[0] for i in one}) == 4, 'a plain sort would pick class a'


def test_logits_rank_where_probabilities_saturate():
    logits = {'a': 60.0, 'b': 50.0, 'c': 55.0}
    assert expit(60.0) == expit(50.0) == 1
    for rule in ('lowest', 'uncertain'):
        assert pick(Discriminator(rule), logits, 3) == ['b', 'c', 'a']


def test_the_score_is_the_probability_of_being_labelled():
    pool = pool_of({'a': 2.0, 'b': -3.0})
    answer = Discriminator().select(pool, NOTHING, 1, 0)
    np.testing.assert_allclose(answer.columns['p_labelled'], expit([2.0, -3.0]))


def test_bad_settings_and_logits_are_refused():
    with pytest.raises(InputError, match='rule must be one of'):
        Discriminator('highest')
    with pytest.raises(InputError, match='margin'):
        Discriminator('margin', margin=1)
    with pytest.raises(ValueError, match="key of 'b' is nan"):
        pick(Discriminator(), {'a': 0.0, 'b': math.nan}, 1)


def test_random_is_uniform_without_replacement():
    ids = [str(i) for i in range(20)]
    picks = [select_random(ids, 5, seed) for seed in range(2000)]
    assert all(len(set(p)) == 5 for p in picks)
    counts = np.array([sum(i in p for p in picks) for i in ids])
    assert abs(counts - 500).max() < 100
    assert select_random(reversed(ids), 5, 3) == picks[3]
    assert pick(Random(), dict.fromkeys(ids, 0.0), 5, 3) == picks[3]
    rows = generator(3, 'random').choice(20, 5, replace=False)
    assert picks[3] == [sorted(ids)[row] for row in rows]
    for budget in (0, 21):
        with pytest.raises(ValueError, match='budget must be 1 to 20'):
            select_random(ids, budget, 0)


def test_another_draw_is_an_independent_random():
    ids = dict.fromkeys((f'{i:02d}' for i in range(40)), 0.0)
    draws = [pick(Random(draw=k), ids, 20, 3) for k in range(4)]
    assert draws[0] == pick(Random(), ids, 20, 3) == select_random(ids, 20, 3)
    assert draws[1] == pick(Random(draw=1), ids, 20, 3)
    assert len({tuple(sorted(picks)) for picks in draws}) == 4
    common = [
        len(set(pick(Random(), ids, 20, s)) & set(pick(Random(1), ids, 20, s)))
        for s in range(400)
    ]
    assert np.mean(common) == pytest.approx(10, abs=0.4), 'half, as by chance'
    for bad in (-1, 1.0, True, '1'):
        with pytest.raises(InputError, match='draw must be an integer'):
            Random(bad)


def test_strategies_are_built_from_configs_and_say_what_they_need():
    built = build_own(QUERIES, dict(type='tjls_mm.Discriminator', rule='margin'))
    assert built.needs == Needs(pool=('logit',)) and built.margin == 0.1
    assert build_own(QUERIES, dict(type='Random')).needs == Needs()


# What a user writes into a file of their own; the documentation shows this text.
STRATEGY = '''
import numpy as np
from tjls_mm.query import QUERIES, Needs, QueryStrategy


@QUERIES.register_module()
class FarFromLabelled(QueryStrategy):
    """Images whose features are farthest from the labelled images' mean."""

    needs = Needs(pool=('feature',), labelled=('feature',))

    def select(self, pool, labelled, budget, seed):
        centre = labelled['feature'].mean(0)
        distance = np.linalg.norm(pool['feature'] - centre, axis=1)
        return pool.smallest(-distance, budget, seed)
'''


@pytest.fixture
def own_strategy(tmp_path, monkeypatch):
    """The strategy of that file, built as a config with ``custom_imports`` does."""
    (tmp_path / 'far_from_labelled.py').write_text(STRATEGY)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module('far_from_labelled')
    yield build_own(QUERIES, dict(type='FarFromLabelled'))
    QUERIES.module_dict.pop('FarFromLabelled')
    sys.modules.pop('far_from_labelled')


def test_a_strategy_in_a_file_of_ones_own(own_strategy):
    features = np.float32([[0, 0], [9, 9], [1, 0], [-5, 0]])
    pool = Outputs.from_arrays(list('abcd'), {'feature': features})
    labelled = Outputs.from_arrays(['x'], {'feature': np.float32([[1, 1]])})
    rows = own_strategy.select(pool, labelled, 3, 0)
    assert check_selection(rows, 4, 3, 'far').rows.tolist() == [1, 3, 0]


@pytest.mark.parametrize('task', ['ssd', 'classifier'])
def test_it_works_on_both_tasks(own_strategy, tmp_path, monkeypatch, task):
    tests = Path(__file__).resolve().parents[1] / 'outputs'
    monkeypatch.syspath_prepend(tests)
    from test_gather import Images, N, gather

    (tmp_path / 'pool').mkdir()
    (tmp_path / 'labelled').mkdir()
    needs = own_strategy.needs
    pool = gather(task, tmp_path / 'pool', names=needs.pool)
    few = Images(task, range(2))
    labelled = gather(task, tmp_path / 'labelled', few, needs.labelled)
    rows = own_strategy.select(pool, labelled, N, 0)
    assert set(check_selection(rows, N, N, 'far').rows) == set(range(N))
    distance = pool['feature'] - labelled['feature'].mean(0)
    assert rows[0] == (distance**2).sum(1).argmax()


@pytest.mark.parametrize(
    'answer, message',
    [
        ([0, 1], '2 rows, 2 different ones: expected 3'),
        ([0, 1, 1], '3 rows, 2 different ones'),
        ([0, 1, 5], 'among them 5'),
        ([0, 1, -1], 'among them -1'),
        ([0.0, 1.0, 2.0], 'integers of one axis'),
        ([[0], [1], [2]], 'integers of one axis'),
        (['a', 'b', 'c'], 'integers of one axis'),
        ([True, True, True], 'integers of one axis'),
        (None, 'integers of one axis'),
        ([[0], [1, 2]], 'integers of one axis'),
        (Selection([0, 1, 2], {'s': np.zeros(4)}), "column 's' of shape"),
        (Selection([0, 1, 2], {'s': np.array(list('abcde'))}), "column 's'"),
    ],
)
def test_what_is_no_selection_is_refused(answer, message):
    with pytest.raises(InputError, match=message) as error:
        check_selection(answer, 5, 3, 'tjls_mm.Mine')
    assert "'tjls_mm.Mine'" in str(error.value)


def read_table(path: Path) -> tuple[list[str], dict[str, np.ndarray]]:
    """image_ids in the order of the file, and columns, NaN where a field is empty."""
    with open(path, newline='', encoding='utf-8') as file:
        header, *rows = csv.reader(file)
    numbers = [[float(field or 'nan') for field in row[1:]] for row in rows]
    columns = dict(zip(header[1:], np.array(numbers).T, strict=True))
    return [row[0] for row in rows], columns


def test_a_selection_is_written_picks_first(tmp_path):
    ids = ['a,1', 'b"x"', 'c', 'd/é', 'e\r']
    logit = np.float32([0.1, 1e-20, -3, 4, 123456.789])
    pool = Outputs.from_arrays(ids, {'logit': logit, 'feature': np.zeros((5, 2))})
    score = np.array([1, np.nan, 1 / 3, 0, 1])
    write_selection(tmp_path / 's.csv', pool, [3, 0], {'score': score})
    text = (tmp_path / 's.csv').read_text(encoding='utf-8')
    assert text.startswith('image_id,rank,logit,score\nd/é,1,4,0\n"a,1",2,')
    back, columns = read_table(tmp_path / 's.csv')
    assert back == ['d/é', 'a,1', 'b"x"', 'c', 'e\r']
    order = [ids.index(i) for i in back]
    assert np.array_equal(np.float32(columns['logit']), logit[order])
    np.testing.assert_allclose(columns['score'], score[order], rtol=1e-8)
    assert np.array_equal(columns['rank'], [1, 2] + [np.nan] * 3, equal_nan=True)


def test_scores_without_picks_are_written_too(tmp_path):
    write_selection(tmp_path / 's.csv', pool_of({'a': 1.0, 'b': 2.0}), [], {})
    expected = 'image_id,rank,logit\na,,1\nb,,2\n'
    assert (tmp_path / 's.csv').read_text() == expected


def test_scores_keep_every_bit(tmp_path, monkeypatch):
    monkeypatch.setattr('tjls_mm.query.selection._LINES', 64)
    logits = np.random.default_rng(0).normal(size=500).astype(np.float32)
    ids = [f'x/{i:03d}' for i in range(500)]
    pool = Outputs.from_arrays(ids, {'logit': logits})
    rows = random.Random(0).sample(range(500), 100)
    write_selection(tmp_path / 's.csv', pool, rows, {})
    back, columns = read_table(tmp_path / 's.csv')
    assert back[:100] == [ids[row] for row in rows]
    assert back[100:] == sorted(set(ids) - set(back[:100]))
    assert np.array_equal(columns['rank'][:100], range(1, 101))
    assert np.isnan(columns['rank'][100:]).all()
    order = [ids.index(i) for i in back]
    assert np.array_equal(np.float32(columns['logit']), logits[order])


def test_report_asks_held_out_against_unseen_images():
    held_out, labelled = np.float32([1, 2]), np.float32([9, 9, 9])
    pool = np.float32([-1, -2, 3, 4, 1])
    seen = np.array([1, 1, 0, 0, 0], bool)
    report = discriminator_report(held_out, labelled, pool, seen)
    # Of 2 x 3 pairs, 2 over 1 is won and 1 over 1 is a tie.
    assert report['auc'] == pytest.approx(1.5 / 6)
    assert report['auc_trained_on'] == 1
    assert (report['n_held_out'], report['n_unseen']) == (2, 3)
    assert (report['n_labelled_trained_on'], report['n_pool_trained_on']) == (3, 2)
    assert report['auc_chance_error'] == pytest.approx(math.sqrt(6 / 72))
    by_hand = -np.log(expit([1.0, 2])).mean() - np.log(expit([-3.0, -4, -1])).mean()
    assert report['loss'] == pytest.approx(by_hand / 2)
    assert report['p_min'] < report['p_median'] < report['p_max']


def test_error_of_the_auc_at_chance_is_its_deviation():
    rng = np.random.default_rng(0)
    reports = [
        discriminator_report(
            rng.normal(size=7), np.zeros(0), rng.normal(size=30), np.zeros(30, bool)
        )
        for _ in range(2000)
    ]
    aucs = [report['auc'] for report in reports]
    assert np.std(aucs) == pytest.approx(reports[0]['auc_chance_error'], rel=0.08)
    assert np.mean(aucs) == pytest.approx(0.5, abs=0.01)


def test_a_side_without_images_has_no_figure():
    none, some = np.zeros(0, np.float32), np.float32([1, 2])
    report = discriminator_report(none, some, some, np.array([True, True]))
    assert report['auc'] is report['auc_chance_error'] is report['loss'] is None
    assert report['auc_trained_on'] == 0.5
    report = discriminator_report(some, none, none, np.zeros(0, bool))
    assert report['auc_trained_on'] is report['p_min'] is None
