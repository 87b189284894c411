"""Figures of curves and of differences over seeds, against hand and slow references."""

import itertools

import numpy as np
import pytest

from tjls_mm.report.statistics import (
    bootstrap_interval,
    equal_cost_difference,
    holm,
    is_interpolated,
    labels_to_reach,
    least_p,
    mean_height,
    seeds_for_level,
    seeds_for_power,
    share_saved,
    sign_flip_p,
)


def test_area_is_the_mean_height_of_straight_lines():
    # 150 wide at a mean of 28.5, 300 wide at 31: (4275 + 9300) / 450.
    found = mean_height(np.array([400, 550, 850]), np.array([27.0, 30.0, 32.0]))
    assert found == pytest.approx(13575 / 450)
    assert mean_height(np.array([400]), np.array([27.0])) == 27
    rng = np.random.default_rng(0)
    x, y = np.sort(rng.choice(900, 6, replace=False)), rng.normal(size=6)
    fine = np.linspace(x[0], x[-1], 200_001)
    assert mean_height(x, y) == pytest.approx(np.interp(fine, x, y).mean(), abs=1e-4)


def test_at_equal_boxes_by_hand():
    # Stages at 50 and at 200 boxes: 100 is half way over log boxes.
    one_step = ([50, 200], [10.0, 18.0], [50, 100], [10.0, 15.0])
    assert equal_cost_difference(*one_step) == pytest.approx(14 - 15)
    # Thrifty: beyond 100 nothing is compared.
    thrifty = ([50, 100], [10.0, 16.0], [50, 200], [10.0, 20.0])
    assert equal_cost_difference(*thrifty) == pytest.approx(16 - 15)
    # Level with the control at 100, 2 above at 400; 500 is out of reach. Over log cost
    # that is 1 on average, and more over cost: 300 d = [x d] - s 300, s = 2 / log 4.
    method = ([50, 100, 400, 500], [10.0, 14.0, 18.0, 40.0])
    control = ([50, 100, 400], [11.0, 14.0, 16.0])
    found = equal_cost_difference(*method, *control)
    assert found == pytest.approx((400 * 2 - 2 / np.log(4) * 300) / 300)
    assert equal_cost_difference([5, 10], [1.0, 2.0], [20, 30], [1.0, 2.0]) is None


ON_ONE_CURVE = [
    ([762, 2330], [762, 1525]),
    ([500, 1500], [500, 1000]),
    ([500, 3000, 5000], [500, 1000, 1500]),
    ([762, 1651], [762, 1525]),
]


@pytest.mark.parametrize('boxes, of_random', ON_ONE_CURVE)
def test_a_rule_that_only_buys_more_boxes_is_level_at_equal_boxes(boxes, of_random):
    def learning_curve(boxes):
        return 3 + 5 * np.log(boxes)

    sides = (boxes, learning_curve(boxes)), (of_random, learning_curve(of_random))
    for one, two in (sides, sides[::-1]):
        assert equal_cost_difference(*one, *two) == pytest.approx(0, abs=1e-9)
    # Straight over the boxes themselves, the rule would lose up to 2.6 points here.
    assert is_interpolated(boxes, of_random) and is_interpolated(of_random, boxes)
    assert not is_interpolated(of_random, of_random)


def test_stages_without_a_box_are_compared_as_with_one():
    control = ([0, 2, 4], [1.0, 2.0, 4.0])
    found = equal_cost_difference([0, 0, 4], [1.0, 2.0, 4.0], *control)
    assert found == equal_cost_difference([1, 1, 4], [1, 2, 4], [1, 2, 4], [1, 2, 4])


def test_at_equal_boxes_is_the_area_between_the_lines_and_changes_sign():
    rng = np.random.default_rng(1)
    for _ in range(20):
        curves = []
        for n in rng.integers(2, 6, 2):
            cost = 100 + np.append(0, np.cumsum(rng.integers(1, 99, n - 1)))
            curves.append((cost, rng.normal(size=n)))
        (b, y), (r, z) = curves
        found = equal_cost_difference(b, y, r, z)
        at = np.linspace(min(b[1], r[1]), min(b[-1], r[-1]), 100_001)
        log = np.log(at)
        slow = (np.interp(log, np.log(b), y) - np.interp(log, np.log(r), z)).mean()
        assert found == pytest.approx(slow, abs=1e-3)
        assert equal_cost_difference(r, z, b, y) == pytest.approx(-found)
        assert equal_cost_difference(b, y + 7, r, z + 7) == pytest.approx(found)
        assert equal_cost_difference(b, y, b, y) == 0


def test_a_stage_without_a_new_box_counts_with_its_last_value():
    method = ([10, 20, 20], [1.0, 2.0, 3.0])
    assert equal_cost_difference(*method, [10, 20], [1.0, 2.5]) == 0.5


def isotonic(y):
    """The rising fit as maxima of minima of means, (S,), from the definition."""
    y, n = np.asarray(y), len(y)
    lows = [
        [min(y[i : k + 1].mean() for k in range(j, n)) for i in range(j + 1)]
        for j in range(n)
    ]
    return np.array([max(row) for row in lows])


def test_labels_to_reach_follow_the_rising_fit():
    # 20 and 16 are pooled to 18: reached at 10 and at 20, and 19 between 20 and 30.
    added, value = np.array([0, 10, 20, 30]), np.array([10.0, 20.0, 16.0, 22.0])
    assert isotonic(value).tolist() == [10, 18, 18, 22]
    assert labels_to_reach(added, value, 14.0) == 5
    assert labels_to_reach(added, value, 18.0) == 10
    assert labels_to_reach(added, value, 19.0) == 22.5
    assert labels_to_reach(added, value, 10.0) == 0
    assert labels_to_reach(added, value, 22.5) is None
    rng = np.random.default_rng(2)
    for _ in range(20):
        value = rng.normal(size=5)
        added, fit = np.arange(5) * 10.0, isotonic(value)
        target = rng.uniform(fit[0], fit[-1])
        found = labels_to_reach(added, value, target)
        assert np.interp(found, added, fit) == pytest.approx(target)
        assert np.interp(found - 0.01, added, fit) <= target


@pytest.mark.parametrize(
    'method, control, expected',
    [
        ([1, 3, 4], [1, 2, 3], 0.5),
        ([1, 2, 3], [1, 2, 3], 0),
        ([1, 2, 2.9], [1, 2, 3], 0),  # not reached
        # The control is at its last value, 2.5, from 10 on: 10 are counted, not 20.
        ([1, 2.5, 3], [1, 3, 2], 0),
        ([1, 4, 5], [1, 3, 2], 0.5),
        ([1, 2, 3], [2, 2, 2], 0),  # nothing to save
        ([9, 9, 9], [1, 2, 3], 1),  # another learner, there at once
    ],
)
def test_saved_labels_by_hand(method, control, expected):
    added = np.array([0, 10, 20])
    found = share_saved(added, np.float64(method), np.float64(control))
    assert found == pytest.approx(expected)


@pytest.mark.parametrize('n', [1, 2, 5, 9])
def test_sign_flips_are_all_gone_through(n):
    for seed in range(4):
        values = np.random.default_rng([seed, n]).normal(0.5, size=n)
        means = [
            np.mean(values * signs) for signs in itertools.product((1, -1), repeat=n)
        ]
        p = np.mean(np.abs(means) >= abs(np.mean(values)) - 1e-12)
        assert sign_flip_p(values) == pytest.approx(p)
        assert sign_flip_p(np.abs(values)) == pytest.approx(least_p(n))
    assert sign_flip_p(np.zeros(n)) == 1


def test_many_seeds_get_random_flips_and_the_same_p_each_time():
    values = np.random.default_rng(0).normal(0.4, size=20)
    assert sign_flip_p(values) == sign_flip_p(values)
    assert 0.001 < sign_flip_p(values) < 0.5


def test_what_seeds_can_say():
    assert least_p(5) == 0.0625 and least_p(1) == 1
    for alpha in (0.05, 0.0125, 0.01):
        n = seeds_for_level(alpha)
        assert least_p(n) <= alpha < least_p(n - 1)


def test_holm_by_hand():
    # Ascending .01 * 4, .02 * 3, .03 * 2 (not below .06), .5.
    assert holm([0.5, 0.01, 0.03, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.7, 0.9]) == pytest.approx([1, 1])
    assert len(holm([])) == 0


def test_the_interval_is_the_same_each_time_and_moves_with_the_values():
    values = np.array([0.2, 1.4, 0.9, -0.3, 1.1])
    low, high = bootstrap_interval(values)
    assert (low, high) == bootstrap_interval(values)
    assert values.min() <= low < values.mean() < high <= values.max()
    assert bootstrap_interval(values + 10) == pytest.approx((low + 10, high + 10))
    assert bootstrap_interval([0.5, 0.5]) == (0.5, 0.5)
    assert bootstrap_interval([0.5]) is None


@pytest.mark.parametrize('n', [6, 8, 12])
def test_the_interval_covers_the_truth(n):
    """Of 300 draws 95 % are 285 with a deviation of 4; plain percentiles cover 260."""
    rng = np.random.default_rng(n)
    covered = 0
    for _ in range(300):
        low, high = bootstrap_interval(rng.normal(size=n))
        covered += low <= 0 <= high
    assert 270 <= covered <= 297


def test_seeds_for_power_are_those_of_the_t_test():
    assert [seeds_for_power(ratio) for ratio in (1, -1.5, 2)] == [10, 6, 5]
    # By simulation: 10 seeds find an effect of one deviation in 80 %, 8 in 68 %.
    rng = np.random.default_rng(0)
    draws = rng.normal(1, size=(20_000, 10))
    t = draws.mean(1) / (draws.std(1, ddof=1) / np.sqrt(10))
    assert np.mean(t > 2.262) == pytest.approx(0.80, abs=0.01)
    assert seeds_for_power(0) is None and seeds_for_power(0.01) is None
    assert seeds_for_power(1, alpha=0.01) > 10
    assert seeds_for_power(1e9) == seeds_for_power(20)
