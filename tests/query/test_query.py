"""Query strategies."""

import math
import random

import numpy as np
import pytest
from scipy.special import expit

from tjls_mm.errors import InputError
from tjls_mm.query import (
    select_lowest,
    select_margin,
    select_random,
    select_uncertain,
)
from tjls_mm.query.pool_outputs import discriminator_report, read_scores, write_scores
from tjls_mm.registry import QUERIES, build_own

LOGITS = {'a': 2.0, 'b': -3.0, 'c': 0.1, 'd': -0.5, 'e': -2.2}


def test_rules():
    assert select_lowest(LOGITS, 2, 0) == ['b', 'e']
    assert select_uncertain(LOGITS, 2, 0) == ['c', 'd']
    assert expit(-2.2) == pytest.approx(0.1, abs=0.001)
    assert select_margin(LOGITS, 2, 0) == ['e', 'b']
    assert select_margin(LOGITS, 1, 0, margin=0.88) == ['a']


@pytest.mark.parametrize('rule', [select_lowest, select_margin, select_uncertain])
def test_order_of_the_input_does_not_matter(rule):
    logits = {f'{i}': round(math.sin(i), 1) for i in range(200)}  # many ties
    shuffled = list(logits.items())
    random.Random(0).shuffle(shuffled)
    assert rule(logits, 50, 7) == rule(dict(shuffled), 50, 7)


def test_ties_follow_the_seed_and_not_the_id():
    logits = dict.fromkeys((f'{c}/{i}' for c in 'abcd' for i in range(25)), 0.0)
    one, two = select_lowest(logits, 20, 1), select_lowest(logits, 20, 2)
    assert one != two
    assert len({i[0] for i in one}) == 4, 'a plain sort would pick class a'


def test_logits_rank_where_probabilities_saturate():
    logits = {'a': 60.0, 'b': 50.0, 'c': 55.0}
    assert expit(60.0) == expit(50.0) == 1
    assert select_lowest(logits, 3, 0) == ['b', 'c', 'a']
    assert select_uncertain(logits, 3, 0) == ['b', 'c', 'a']


@pytest.mark.parametrize('rule', [select_lowest, select_margin, select_uncertain])
def test_bad_input_is_refused(rule):
    with pytest.raises(ValueError, match='budget must be 1 to 5'):
        rule(LOGITS, 6, 0)
    with pytest.raises(ValueError, match='budget must be 1 to 5'):
        rule(LOGITS, 0, 0)
    with pytest.raises(ValueError, match="logit of 'x' is nan"):
        rule({**LOGITS, 'x': math.nan}, 2, 0)


def test_random_is_uniform_without_replacement():
    ids = [str(i) for i in range(20)]
    picks = [select_random(ids, 5, seed) for seed in range(2000)]
    assert all(len(set(p)) == 5 for p in picks)
    counts = np.array([sum(i in p for p in picks) for i in ids])
    assert abs(counts - 500).max() < 100
    assert select_random(reversed(ids), 5, 3) == picks[3]


def test_registered_strategies_say_what_they_need():
    pool = {k: {'logit': v} for k, v in LOGITS.items()}
    for name, needs in [
        ('random', ()),
        ('lowest', ('logit',)),
        ('margin', ('logit',)),
        ('uncertain', ('logit',)),
    ]:
        strategy = build_own(QUERIES, dict(type=name))
        assert strategy.needs == needs
        assert len(set(strategy.select(pool, 3, 0))) == 3


def test_scores_keep_every_bit(tmp_path):
    logits = np.random.default_rng(0).normal(size=500).astype(np.float32)
    ids = [f'x/{i}' for i in range(500)]
    write_scores(tmp_path / 's.csv', ids, logits)
    back = read_scores(tmp_path / 's.csv')
    assert np.array_equal(np.float32([back[i] for i in ids]), logits)
    assert list(back) == sorted(ids)


@pytest.mark.parametrize(
    'text, message',
    [
        ('id,score\n', 'expected columns'),
        ('image_id,logit,score\na,x,0.5\n', 'line 2'),
        ('image_id,logit,score\na,1,0.5\na,1,0.5\n', 'line 3'),
    ],
)
def test_spoiled_scores_are_refused(tmp_path, text, message):
    (tmp_path / 's.csv').write_text(text)
    with pytest.raises(InputError, match=message):
        read_scores(tmp_path / 's.csv')


def test_report_tells_seen_from_unseen_pool_images():
    labelled = np.array([1.0, 2.0])
    pool = np.array([-1.0, -2.0, 3.0, 4.0])
    report = discriminator_report(labelled, pool, np.array([1, 1, 0, 0], bool))
    assert report['auc_trained_on'] == 1 and report['auc_unseen'] == 0
    assert report['auc'] == 0.5
    assert report['p_min'] < report['p_median'] < report['p_max']
    alone = discriminator_report(labelled, pool, np.ones(4, bool))
    assert alone['auc_unseen'] is None
