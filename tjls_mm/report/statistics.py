"""Figures of learning curves and of their differences over seeds; arrays only."""

import numpy as np
from scipy import integrate, optimize, stats

from tjls_mm.randomness import generator

CONFIDENCE = 0.95
RESAMPLES = 9999
NEAR = 1.05
"""A stage so near to a range of costs, as a ratio, counts as one in it."""
EXACT_SEEDS = 16
"""Up to so many seeds the sign-flip test goes through all flips."""


def mean_height(x: np.ndarray, y: np.ndarray) -> float:
    """Area under a curve of straight lines, divided by its width.

    Args:
        x: (S,), ascending, what was labelled.
        y: (S,), the metric there.

    Returns:
        In units of ``y``; the mean of ``y`` where the curve has no width.

    >>> mean_height([1, 2, 4], [0.0, 1.0, 1.0])
    0.8333333333333334
    """
    width = x[-1] - x[0]
    return float(integrate.trapezoid(y, x) / width if width else np.mean(y))


def equal_cost_difference(
    cost: np.ndarray,
    value: np.ndarray,
    control_cost: np.ndarray,
    control_value: np.ndarray,
) -> float | None:
    """Mean height of a curve over a control's at equal cost, e.g. labelled boxes.

    Both curves are straight lines between their stages over the logarithm of the cost:
    learning curves are close to that, and over the cost itself a line lies well below
    them where stages are far apart, which whoever buys more per stage would pay for.
    They are compared over the range of costs that both reach, from the cheaper first
    stage after stage 0 (which is shared) to the cheaper last stage. Neither is
    extrapolated, so what a method that buys more gains beyond the control's last cost
    says nothing here. The mean is over the cost, as the area is over labelled images.
    Exchanging the two changes the sign and nothing else.

    Args:
        cost: (S + 1,), ascending, >= 0, of stage 0 and S more; below 1 is taken as 1.
        value: (S + 1,), the metric there.
        control_cost: (T + 1,), of the control.
        control_value: (T + 1,).

    Returns:
        In units of ``value``; None where the ranges do not meet.

    >>> round(equal_cost_difference([10, 1000], [1.0, 5.0], [10, 100], [1.0, 2.0]), 6)
    1.0
    """
    at = _shared_costs(cost, control_cost)
    if not len(at):
        return None
    control = _between_stages(at, control_cost, control_value)
    difference = _between_stages(at, cost, value) - control
    if len(at) == 1:
        return float(difference[0])
    # By parts, of straight lines over log(cost): exact between any two stages.
    slope = np.diff(difference) / np.diff(np.log(at))
    area = np.diff(at * difference) - slope * np.diff(at)
    return float(area.sum() / (at[-1] - at[0]))


def is_interpolated(cost: np.ndarray, control_cost: np.ndarray) -> bool:
    """Whether ``equal_cost_difference`` knows a side from between two stages only.

    That side has no stage after stage 0 in the range of costs that is compared, nor
    within 5 % of it: its part of the figure hangs on the shape that is assumed between
    stages.

    >>> is_interpolated([500, 1500], [500, 1000])
    True
    >>> is_interpolated([500, 1020], [500, 1000])
    False
    >>> is_interpolated([500, 900, 1500], [500, 1000])
    False
    """
    at = _shared_costs(cost, control_cost)
    low, high = (at[0] / NEAR, at[-1] * NEAR) if len(at) else (np.inf, -np.inf)
    stages = (_from_1(side)[1:] for side in (cost, control_cost))
    return any(not np.any((low <= s) & (s <= high)) for s in stages)


def _shared_costs(cost, control_cost) -> np.ndarray:
    """Costs of stages of either, ascending, in the range that is compared."""
    one, two = _from_1(cost), _from_1(control_cost)
    stages = np.union1d(one[1:], two[1:])
    start, end = max(one[0], two[0]), min(one[-1], two[-1])
    return stages[(stages >= start) & (stages <= end)]


def _between_stages(at: np.ndarray, cost, value) -> np.ndarray:
    cost = _from_1(cost)
    # Of stages of one cost the last counts: it has more images.
    last = np.append(np.diff(cost) > 0, True)
    return np.interp(np.log(at), np.log(cost[last]), np.asarray(value)[last])


def _from_1(cost) -> np.ndarray:
    # Nothing labelled, e.g. images without a box, has no logarithm.
    return np.maximum(np.asarray(cost, float), 1)


def labels_to_reach(added: np.ndarray, value: np.ndarray, target: float):
    """Labels at which the rising fit of a curve first is at a target.

    Args:
        added: (S + 1,), ascending, labels added since stage 0.
        value: (S + 1,), the metric there.
        target: In units of ``value``.

    Returns:
        In units of ``added``, on a straight line between stages; None if not reached.

    >>> labels_to_reach([0, 10, 20], [1.0, 2.0, 4.0], 3.0)
    15.0
    """
    fit = optimize.isotonic_regression(value).x
    if fit[-1] < target:
        return None
    i = int(np.argmax(fit >= target))
    if i == 0:
        return float(added[0])
    part = (target - fit[i - 1]) / (fit[i] - fit[i - 1])
    return float(added[i - 1] + part * (added[i] - added[i - 1]))


def share_saved(added: np.ndarray, value: np.ndarray, control: np.ndarray) -> float:
    """Share of the labels added that a method spares on the way to the control's end.

    The target is the last value of the control's rising (isotonic) fit, and what is
    spared is counted from where that fit first reaches it: its last stage, unless the
    control stops rising before.

    Args:
        added: (S + 1,), ascending from 0, labels added since stage 0, of both.
        value: (S + 1,), the metric of the method.
        control: (S + 1,), of the control.

    Returns:
        In [0, 1]; 0 where the method does not get there, or not earlier.

    >>> share_saved([0, 10, 20], [1.0, 3.0, 4.0], [1.0, 2.0, 3.0])
    0.5
    """
    target = optimize.isotonic_regression(control).x[-1]
    needed = labels_to_reach(added, value, target)
    by_control = labels_to_reach(added, control, target)
    if needed is None or not by_control:
        return 0.0
    return max(0.0, 1 - needed / by_control)


def bootstrap_interval(values: np.ndarray) -> tuple[float, float] | None:
    """Interval of 95 % for the mean of what was measured with n seeds.

    Percentiles of resampled means, further out the fewer seeds there are: plain
    percentiles of 5 to 8 seeds cover 84 to 90 %, these 92 to 95 %. The interval never
    leaves the range of the values, so fewer than 5 seeds cover at most 1 - 2 / 2^n.

    Args:
        values: (n,), one per seed. Equal values give an equal interval.

    Returns:
        Low and high; None for one seed.

    Source: Hesterberg, What Teachers Should Know About the Bootstrap, 2015, Sec. 5.3
    (expanded percentiles).
    """
    n = len(values)
    if n < 2:
        return None
    quantile = stats.t.isf((1 - CONFIDENCE) / 2, n - 1) * np.sqrt(n / (n - 1))
    found = stats.bootstrap(
        (np.asarray(values, float),),
        np.mean,
        n_resamples=RESAMPLES,
        method='percentile',
        confidence_level=1 - 2 * stats.norm.sf(quantile),
        random_state=generator(0, 'bootstrap'),
    ).confidence_interval
    return float(found.low), float(found.high)


def sign_flip_p(values: np.ndarray) -> float:
    """Two-sided p of differences whose sign would be chance if nothing differed.

    Args:
        values: (n,), one difference per seed.

    Returns:
        Share of all 2^n choices of signs with a mean at least as far from 0, in (0, 1];
        of as many random ones beyond 16 seeds.

    >>> sign_flip_p([1.0, 2.0, 3.0])
    0.25
    """
    if len(values) == 1:
        return least_p(1)
    found = stats.permutation_test(
        (np.asarray(values, float),),
        np.mean,
        permutation_type='samples',
        n_resamples=2**EXACT_SEEDS,
        random_state=generator(0, 'sign flips'),
    )
    return float(found.pvalue)


def least_p(n_seeds: int) -> float:
    """What the sign-flip test gives where all seeds agree."""
    return min(1.0, 2 / 2**n_seeds)


def seeds_for_level(alpha: float) -> int:
    """The fewest seeds with which the sign-flip test can reach a level in (0, 1).

    >>> [seeds_for_level(alpha) for alpha in (0.05, 0.0125)]
    [6, 8]
    """
    return int(np.ceil(1 - np.log2(alpha)))


def holm(p: np.ndarray) -> np.ndarray:
    """p of several tests, (m,), raised so that one error in all is held at the level.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.

    >>> holm([0.01, 0.04, 0.03]).round(2).tolist()
    [0.03, 0.06, 0.06]
    """
    p = np.asarray(p, float)
    order = np.argsort(p, kind='stable')
    raised = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    found = np.empty(len(p))
    found[order] = np.minimum(raised, 1.0)
    return found


def seeds_for_power(
    ratio: float, alpha: float = 0.05, power: float = 0.8, most: int = 1000
) -> int | None:
    """Seeds with which a paired t-test finds an effect so often.

    Args:
        ratio: Mean difference divided by its deviation over seeds, of any sign.
        alpha: Level of the test, two-sided, in (0, 1).
        power: How often, in (0, 1).
        most: Where to give up.

    Returns:
        At least 2; None beyond ``most``.

    >>> [seeds_for_power(ratio) for ratio in (1, 1.5, 2)]
    [10, 6, 5]
    """
    n = np.arange(2, most + 1)
    shift = min(abs(ratio), 20.0) * np.sqrt(n)
    critical = stats.t.isf(alpha / 2, n - 1)
    enough = stats.nct.sf(critical, n - 1, shift) >= power
    return int(n[np.argmax(enough)]) if enough.any() else None
