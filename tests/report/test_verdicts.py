"""Rules beside a control: figures worked out by hand, tests, words, win rates."""

import math
from pathlib import Path

import numpy as np
import pytest

from tjls_mm.report.comparison import Comparison
from tjls_mm.report.statistics import bootstrap_interval, sign_flip_p
from tjls_mm.report.trial_summary import TrialSummary
from tjls_mm.report.verdicts import compare_with, points_per_unit
from tjls_mm.report.win_rates import win_rates

SETS = {key: (1, 'same') for key in ('images', 'test', 'initial')}


def trial(name: str, seed: int, values, boxes=None, start=100) -> TrialSummary:
    """100 more images per stage, and boxes where they are given."""
    rows = []
    for stage, value in enumerate(values):
        row = {'stage': stage, 'n_labelled': start + 100 * stage}
        if boxes is not None:
            row['n_boxes'] = boxes[stage]
        rows.append({**row, 'mAP': value})
    return TrialSummary(Path(name), name, seed, name, SETS, rows)


def group(name: str, gains, stages=(0.2, 0.3, 0.4), boxes=None) -> list[TrialSummary]:
    """One trial per gain, each above its seed's own level after stage 0."""
    return [
        trial(name, seed, [v + seed / 50 + g * (k > 0) for k, v in enumerate(stages)])
        for seed, g in enumerate(gains)
    ]


def rule_of(trials, name, control='random'):
    (found,) = [r for r in compare_with(trials, control)[1] if r.name == name]
    return found


def test_figures_of_a_rule_by_hand():
    trials = [
        trial('random', 0, [0.20, 0.30, 0.40], [10, 20, 30]),
        trial('random', 1, [0.30, 0.40, 0.50], [10, 20, 30]),
        trial('rule', 0, [0.20, 0.34, 0.42], [10, 30, 50]),
        trial('rule', 1, [0.30, 0.42, 0.54], [10, 30, 50]),
        trial('rule', 2, [0.99, 0.99, 0.99], [10, 30, 50]),  # without a partner
    ]
    rule = rule_of(trials, 'rule')
    assert rule.seeds == (0, 1) and rule.counts == (200, 300) and rule.n_boxes == 50
    assert rule.area == pytest.approx((38 + 48) / 2)
    assert rule.last == pytest.approx((42 + 54) / 2)
    assert rule.difference.values == pytest.approx((38 - 35, 48 - 45))
    assert rule.last_difference.values == pytest.approx((2, 4))
    # At 20 boxes the rule is log 2 / log 3 on its way to stage 1, at 30 it is there.
    # By parts, over 10 boxes: [x d] less 10 times the slope of d over log x.
    part = math.log(2) / math.log(3)
    slow = []
    for at_20, at_30 in ((14 * part - 10, 34 - 40), (12 * part - 10, 42 - 50)):
        slope = (at_30 - at_20) / math.log(1.5)
        slow.append((30 * at_30 - 20 * at_20 - 10 * slope) / 10)
    assert rule.equal_boxes.values == pytest.approx(slow)
    assert not rule.is_interpolated  # 30 boxes are a stage of both
    # 0.40 lies at 3/4 between stages 1 and 2: 175 of 200 images; 0.50 at 2/3.
    assert rule.saved.values == pytest.approx((0.125, 1 - (100 + 100 * 2 / 3) / 200))
    assert rule.stage_0 == pytest.approx(0)


def test_a_constant_shifts_no_difference():
    rng = np.random.default_rng(0)
    values = rng.normal(0.3, 0.05, size=(2, 6, 4))
    found = []
    for shift in (0, 0.1):
        trials = [
            trial(name, seed, row + shift, [10, 20 + 5 * side, 40, 50])
            for side, name in enumerate(('random', 'rule'))
            for seed, row in enumerate(values[side])
        ]
        found.append(rule_of(trials, 'rule'))
    one, two = found
    for key in ('difference', 'last_difference', 'equal_boxes', 'saved'):
        assert getattr(one, key).values == pytest.approx(getattr(two, key).values)
        interval = getattr(one, key).interval
        assert interval == pytest.approx(getattr(two, key).interval)
    assert one.p == two.p and two.area == pytest.approx(one.area + 10)


def test_fractions_and_per_cent_are_both_in_points():
    fractions = group('random', [0] * 6) + group('rule', [0.01] * 6)
    per_cent = group('random', [0] * 6, (20, 30, 40))
    per_cent += group('rule', [1] * 6, (20, 30, 40))
    assert (points_per_unit(fractions), points_per_unit(per_cent)) == (100, 1)
    for trials in (fractions, per_cent):
        assert rule_of(trials, 'rule').difference.mean == pytest.approx(1)


SOME = np.array([0.010, 0.012, 0.008, 0.011, 0.009, 0.013, 0.010, 0.012])
MIXED = np.array([0.010, -0.012, 0.008, -0.011, 0.009, -0.013, 0.010, -0.012])
NULL = 'not distinguishable from random'


@pytest.mark.parametrize(
    'gains, words, not_worse',
    [
        (SOME, 'better than random', True),
        (-SOME, 'worse than random', False),
        (MIXED, NULL, False),
        (MIXED / 10, NULL, True),
        (SOME[:5], NULL, True),
        (SOME[:4], NULL, None),
        (SOME[:1], 'no verdict from one seed', None),
    ],
)
def test_verdicts_in_words(gains, words, not_worse):
    rule = rule_of(group('random', 0 * gains) + group('rule', gains), 'rule')
    assert rule.verdict('random') == words
    assert rule.not_worse(0.5) is not_worse


def test_not_worse_is_the_lower_end_against_the_margin():
    rule = rule_of(group('random', 0 * MIXED) + group('rule', MIXED), 'rule')
    low, high = bootstrap_interval(100 * MIXED)
    assert rule.difference.interval == pytest.approx((low, high)) and low < 0
    assert rule.not_worse(-low + 0.01) and not rule.not_worse(-low - 0.01)


def test_holm_is_over_the_rules_and_passes_the_second_random_by():
    trials = group('random', 0 * SOME) + group('random_again', MIXED)
    alone = rule_of(trials + group('a', SOME), 'a')
    trials += group('a', SOME) + group('b', -SOME) + group('c', MIXED)
    _, rules = compare_with(trials, 'random')
    assert [rule.name for rule in rules] == ['random_again', 'a', 'c', 'b']
    again, a, c, b = rules
    assert alone.p == alone.p_holm == a.p == b.p == 2 / 2**8
    assert a.p_holm == b.p_holm == 3 * a.p
    assert again.is_again and again.p_holm == again.p == c.p == c.p_holm > 0.3
    # 2 / 2^6 is below 0.05, and 2 / 2^7 below a third of it.
    assert alone.seeds_needed == 6 and a.seeds_needed == 7
    assert c.seeds_needed > 100


def lines_and_notes(trials, **options):
    comparison = Comparison(trials, **options)
    return comparison.lines(), comparison.notes()


def test_a_second_random_must_come_out_null():
    trials = group('x_random', 0 * SOME) + group('x_rule', SOME)
    (line,), notes = lines_and_notes(trials)
    assert line.startswith('rule: better than random, +1.1 points (')
    assert any(note.startswith('No A/A row.') for note in notes)
    null = trials + group('x_random_again', MIXED)
    (line, _), notes = lines_and_notes(null)
    assert line.startswith('random_again: A/A is null, as it must be, -0.1 points')
    assert not notes
    (_, _, row, *_) = Comparison(null).rule_table()[1]
    assert row[0] == 'random_again (A/A)' and row[4] == f'{sign_flip_p(MIXED):.3f}'
    broken = trials + group('x_random_again', SOME)
    (line, _), _ = lines_and_notes(broken)
    assert line.startswith('random_again: A/A IS NOT NULL, +1.1 points')
    assert 'Something is wrong with the comparison' in line
    few = group('random', [0] * 5) + group('random_again', SOME[:5])
    (line,), _ = lines_and_notes(few)
    assert 'Too few seeds to tell whether this is null' in line


@pytest.mark.parametrize(
    'n, rules, expected',
    [
        (5, 1, '5 seeds can at best give p = 0.06: it takes 6 to call a rule better'),
        (7, 4, '7 seeds can at best give p = 0.02, 0.06 with Holm over 4 rules: it ta'),
        (8, 4, None),
        (6, 1, None),
    ],
)
def test_too_few_seeds_are_said(n, rules, expected):
    trials = group('random', 0 * SOME[:n])
    for k in range(rules):
        trials += group(f'rule{k}', MIXED[:n] * (k + 1))
    _, notes = lines_and_notes(trials)
    found = [note for note in notes if 'at best' in note]
    assert bool(found) == bool(expected)
    assert expected is None or found[0].startswith(expected)


def test_one_seed_has_differences_and_nothing_else():
    trials = group('random', [0]) + group('rule', [0.02])
    (line,), notes = lines_and_notes(trials)
    assert line.startswith('rule: no verdict from one seed, +2.0 points. Saves ')
    assert 'One seed: no intervals, no tests, no verdicts.' in notes
    _, control, row = Comparison(trials).rule_table()[1]
    # 0.40 lies at 4/5 between 0.32 and 0.42: 180 of 200 images.
    assert row == ['rule', '1', '37.0', '+2.0', '', '+2.0', '10 %']
    assert control == ['random', '1', '35.0', '', '', '', '']


def test_a_ladder_of_one_step():
    stages = (0.2, 0.3)
    trials = group('random', 0 * SOME, stages) + group('rule', SOME, stages)
    comparison = Comparison(trials)
    title, (_, _, row) = comparison.rule_table()
    assert 'at 200 labelled images' in title
    rule = rule_of(trials, 'rule')
    assert rule.counts == (200,) and row[3] == row[5]
    assert rule.difference.values == pytest.approx(100 * SOME)
    assert rule.saved.values == pytest.approx(1 - 0.1 / (0.1 + SOME))


def test_only_stages_that_all_seeds_of_both_have_are_compared():
    trials = group('random', [0, 0], (0.2, 0.3, 0.4, 0.5))
    trials += group('rule', [0.01, 0.01], (0.2, 0.3, 0.4, 0.5))
    trials.append(trial('rule', 2, [0.2, 0.3, 0.4]))
    trials.append(trial('random', 2, [0.2, 0.3, 0.4, 0.5]))
    trials.append(trial('rule', 3, [0.2]))
    trials.append(trial('random', 3, [0.2, 0.3, 0.4, 0.5]))
    # Most seeds are complete: the one behind is left out, not its stages.
    rule = rule_of(trials, 'rule')
    assert rule.counts == (200, 300, 400) and rule.seeds == (0, 1)
    _, notes = lines_and_notes(trials)
    assert 'rule: without seed 3 (not beyond stage 0, or no such seed of random).' in (
        notes
    )
    assert (
        'rule: without seed 2 (it, or random with that seed, has not all of 200, 300, '
        '400 labelled images).'
    ) in notes
    # As many are behind: the row is of what all have, and says so.
    even = [t for t in trials if t.seed in (0, 2)]
    rule = rule_of(even, 'rule')
    assert rule.counts == (200, 300) and rule.seeds == (0, 2)
    title, cells = Comparison(even).rule_table()
    assert 'over 200 to 400' in title
    assert [row[0] for row in cells] == ['', 'random', 'rule (over 200 to 300)']
    _, notes = lines_and_notes(even)
    assert any('rule: compared at 200, 300 labelled images; not' in n for n in notes)
    # Another rule is compared over what it has.
    more = trials[:4] + [trial('two', 0, [0.2, 0.3]), trial('two', 1, [0.2, 0.3])]
    assert rule_of(more, 'rule').counts == (200, 300, 400)
    assert rule_of(more, 'two').counts == (200,)


def test_what_makes_a_comparison_doubtful_is_noted():
    trials = group('random', 0 * SOME, (0.2, 0.4, 0.3))
    trials += [trial('rule', t.seed, [r['mAP'] + 0.02 for r in t.rows]) for t in trials]
    _, notes = lines_and_notes(trials)
    assert any(
        note.startswith('random falls from 47.0 to 37.0 points') for note in notes
    )
    assert any(note.startswith('rule: +2.0 points at stage 0') for note in notes)


def test_without_a_control_there_are_no_differences():
    trials = [trial('a', 0, [0.2, 0.3, 0.4], [1, 2, 3]), trial('b', 0, [0.2, 0.4])]
    comparison = Comparison(trials)
    title, cells = comparison.rule_table()
    assert 'at 200 labelled images' in title and not comparison.lines()
    assert cells[1:] == [
        ['a', '1', '30.0', '30.0', '2'],
        ['b', '1', '40.0', '40.0', ''],
    ]
    assert comparison.notes() == [
        'No control (one name that ends with random, or --control NAME).'
    ]
    behind = Comparison(
        [
            *trials,
            *(trial('a', s, [0.2, 0.3, 0.4]) for s in (1, 2)),
            trial('a', 3, [0.2, 0.3]),
        ]
    )
    assert behind.rule_table()[1][1][:2] == ['a', '3']
    assert behind.notes()[1].startswith('a: without seed 3 (has not the stages')
    only_start = Comparison([trial('random', 0, [0.2]), trial('a', 0, [0.2, 0.3])])
    assert only_start.lines() == [] and 'stage 0 only' in only_start.notes()[0]


def test_a_control_without_a_common_stage_says_what_its_seeds_have():
    trials = [trial('random', 0, [0.2, 0.3, 0.4]), trial('random', 1, [0.2, 0.3])]
    trials[1].rows[1]['n_labelled'] = 250
    comparison = Comparison([*trials, trial('rule', 0, [0.2, 0.4])])
    assert comparison.notes() == [
        'The control, random, has no number of labelled images in all seeds (seed 0 '
        'has 200, 300; seed 1 has 250): no differences, no verdicts.'
    ]


def test_values_at_equal_boxes_that_are_interpolated_alone_are_noted():
    trials = []
    for name, boxes in (('random', 20), ('greedy', 30), ('level', 20)):
        trials += [trial(name, seed, [0.2, 0.3], [10, boxes]) for seed in (0, 1)]
    _, notes = lines_and_notes(trials)
    (note,) = [note for note in notes if 'equal boxes' in note]
    assert note.startswith('At equal boxes, greedy: in some seed one side')


def test_stage_0_of_a_ladder_is_no_rule():
    trials = group('random', [0, 0]) + group('rule', [0.01, 0.01])
    shared = [trial('shared', seed, [0.2]) for seed in (0, 1)]
    alone, beside = Comparison(trials), Comparison(trials + shared)
    assert beside.names == alone.names and beside.rule_table() == alone.rule_table()
    note = 'shared: stage 0 of a ladder, no rule of its own, left out.'
    assert beside.notes() == [note, *alone.notes()]


def test_curves_are_of_seeds_that_have_come_as_far():
    trials = group('random', [0, 0]) + [trial('random', 2, [0.2])]
    trials += [*group('late', [0, 0]), trial('late', 2, [0.2, 0.3])]
    trials += [trial('new', seed, [0.2]) for seed in (0, 1)]
    curves = Comparison(trials).curves
    for name, n_stages in (('random', 3), ('late', 3), ('new', 1)):
        assert [row['seeds'] for row in curves[name]] == [2] * n_stages


def test_win_rates_are_shares_of_seeds_and_stages():
    trials = [
        trial('a', 0, [0.9, 0.3, 0.4]),
        trial('a', 1, [0.9, 0.3, 0.4, 0.5]),
        trial('b', 0, [0.1, 0.2, 0.5]),
        trial('b', 1, [0.1, 0.3, 0.3, 0.4]),
        trial('c', 2, [0.1, 0.2]),
    ]
    shares, pairs = win_rates(trials, ['a', 'b', 'c'])
    # a wins 0.3 : 0.2, loses 0.4 : 0.5, ties at 0.3, wins the last two.
    assert shares[0, 1] == 3 / 5 and shares[1, 0] == 1 / 5
    assert pairs.tolist() == [[0, 5, 0], [5, 0, 0], [0, 0, 0]]
    assert math.isnan(shares[0, 0]) and np.isnan(shares[2]).all()
    swapped, _ = win_rates(trials[::-1], ['b', 'a', 'c'])
    assert swapped[1, 0] == shares[0, 1]
