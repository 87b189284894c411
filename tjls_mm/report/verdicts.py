"""What trials of several seeds say of rules beside a control, in figures and words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tjls_mm.report.stage_line import metric_name
from tjls_mm.report.statistics import (
    bootstrap_interval,
    equal_cost_difference,
    holm,
    is_interpolated,
    least_p,
    mean_height,
    seeds_for_level,
    seeds_for_power,
    share_saved,
    sign_flip_p,
)
from tjls_mm.report.trial_summary import TrialSummary

ALPHA = 0.05
MARGIN = 0.5
"""Points that a rule may be worse by and still count as not meaningfully worse."""


@dataclass(frozen=True)
class Effect:
    """A mean over seeds and its 95 % interval, None for one seed."""

    values: tuple[float, ...]
    interval: tuple[float, float] | None

    @classmethod
    def of(cls, values: Iterable[float]) -> 'Effect':
        values = tuple(float(value) for value in values)
        return cls(values, bootstrap_interval(np.array(values)))

    @property
    def mean(self) -> float:
        return float(np.mean(self.values))

    @property
    def ratio(self) -> float:
        """Mean by sample deviation over seeds; at least two."""
        deviation = np.std(self.values, ddof=1)
        return float(self.mean / deviation if deviation else np.sign(self.mean) * 1e9)


@dataclass(frozen=True)
class Rule:
    """One name of trials beside the control, over the stages that both have.

    Attributes:
        is_again: Whether it is a second Random, the A/A row.
        seeds: Those that both have (see ``complete``), ascending; every Effect is over
            them.
        counts: Labelled images of the stages compared, stage 0 left out.
        area: Mean height of the learning curve over labelled images, in points.
        last: Value of the last stage, in points.
        n_boxes: Labelled boxes at the last stage, None where an image is a label.
        difference: Of the area, to the control's with the same seed, in points.
        last_difference: The same of the last stage.
        equal_boxes: The same over labelled boxes (see ``equal_cost_difference``).
        is_interpolated: Whether some seed of it is from between two stages only.
        saved: Share of the images added (see ``share_saved``).
        stage_0: Mean difference before any pick, in points; 0 where it is shared.
        p: Of the sign-flip test on ``difference``; None for one seed.
        p_holm: The same raised by Holm over all rules; of the A/A row, ``p``.
        at_best: What ``p_holm`` can be at least, given what other rules reached.
        seeds_needed: For 80 % power at this effect, None for one seed or beyond 1000.
    """

    name: str
    is_again: bool
    seeds: tuple[int, ...]
    counts: tuple[int, ...]
    area: float
    last: float
    n_boxes: float | None
    difference: Effect
    last_difference: Effect
    equal_boxes: Effect | None
    is_interpolated: bool
    saved: Effect
    stage_0: float
    p: float | None = None
    p_holm: float | None = None
    at_best: float | None = None
    seeds_needed: int | None = None

    @property
    def n_above(self) -> int:
        return sum(value > 0 for value in self.difference.values)

    def verdict(self, control: str) -> str:
        """'better than', 'worse than' or 'not distinguishable from' the control."""
        if self.p_holm is None:
            return 'no verdict from one seed'
        if self.p_holm > ALPHA:
            return f'not distinguishable from {control}'
        return f'{"better" if self.difference.mean > 0 else "worse"} than {control}'

    def not_worse(self, margin: float) -> bool | None:
        """Whether the interval leaves out all that is worse by the margin, in points.

        None with fewer than five seeds: the lowest of n differences lies below the
        truth with 1 - 1 / 2^n only.
        """
        if self.difference.interval is None or least_p(len(self.seeds)) / 2 > ALPHA:
            return None
        return self.difference.interval[0] > -margin


def points_per_unit(trials: Sequence[TrialSummary]) -> float:
    """100 where a metric is a fraction, as mAP of mmdet; 1 where it is per cent.

    Per cent is what goes above 1, as accuracies of mmpretrain do.
    """
    metric = metric_name(trials[0].rows)
    return 1.0 if max(row[metric] for t in trials for row in t.rows) > 1 else 100.0


def paired_trials(
    trials: Sequence[TrialSummary], name: str, control: str
) -> list[tuple[TrialSummary, TrialSummary]]:
    """Trials of a name and of the control with equal seeds, seeds ascending.

    Those with no more than stage 0 are left out.
    """
    by_seed = {t.seed: t for t in trials if t.name == control}
    mine = sorted((t for t in trials if t.name == name), key=lambda t: t.seed)
    pairs = [(t, by_seed[t.seed]) for t in mine if t.seed in by_seed]
    return [pair for pair in pairs if all(len(trial.rows) > 1 for trial in pair)]


def common_counts(trials: Sequence[TrialSummary]) -> tuple[int, ...]:
    """Numbers of labelled images that all trials have after stage 0, ascending."""
    counts = [{row['n_labelled'] for row in trial.rows[1:]} for trial in trials]
    return tuple(sorted(set.intersection(*counts))) if counts else ()


def complete(groups: Sequence[Sequence[TrialSummary]]) -> list:
    """The groups that have the stages which most of them have, in order.

    One that lags behind is left out rather than its stages out of all others. A group
    is what stands or falls together: a trial, or one and its control.

    Returns:
        Groups that have the most numbers of labelled images which more than half of the
        groups have; all groups where so many have the stages of none.
    """
    counts = [{*common_counts(group)} for group in groups]
    shared = [sum(own <= other for other in counts) for own in counts]
    most = [own for own, n in zip(counts, shared, strict=True) if 2 * n > len(groups)]
    kept = max(most, key=len, default=set())
    return [g for g, own in zip(groups, counts, strict=True) if kept <= own]


def common_rows(trials: Sequence[TrialSummary]) -> list[TrialSummary]:
    """Trials of one name with the rows that a curve of their means goes through.

    Those are stage 0 and what all ``complete`` trials have; without any such stage,
    stage 0 of all. A mean over other seeds than the point before would bend the curve.
    """
    several = [[trial] for trial in trials if len(trial.rows) > 1]
    kept = [trial for group in complete(several) for trial in group]
    counts = common_counts(kept)

    def rows(trial: TrialSummary) -> list[dict]:
        first, *rest = trial.rows
        return [first, *(row for row in rest if row['n_labelled'] in counts)]

    return [replace(t, rows=rows(t)) for t in (kept if counts else trials)]


def compare_with(
    trials: Sequence[TrialSummary], control: str
) -> tuple[Rule | None, list[Rule]]:
    """The control itself, None without a stage after stage 0, and the others beside it.

    A second Random comes first, then the rules, best first; the order of the trials
    does not matter. A name that shares no seed or no stage after stage 0 with the
    control is not among them.
    """
    names = sorted({trial.name for trial in trials} - {control})
    found = [measure(trials, name, control) for name in names]
    rules = _tested([rule for rule in found if rule])
    order = sorted(rules, key=lambda r: (not r.is_again, -r.difference.mean, r.name))
    return measure(trials, control, control), order


def measure(
    trials: Sequence[TrialSummary],
    name: str,
    control: str,
    counts: Sequence[int] = (),
) -> Rule | None:
    """Figures of one name beside the control, without tests; None if nothing is shared.

    The control beside itself has its own figures and differences of 0. ``counts`` are
    those of the stages to compare, which all have; by default of all stages of the
    pairs that are ``complete``.
    """
    pairs = paired_trials(trials, name, control)
    pairs = pairs if counts else complete(pairs)
    counts = counts or common_counts([trial for pair in pairs for trial in pair])
    if not pairs or not counts:
        return None
    scale = points_per_unit(trials)
    curves = [tuple(_curve(t, counts, scale) for t in pair) for pair in pairs]
    has_boxes = all(c.n_boxes is not None for pair in curves for c in pair)
    boxes = [_at_equal_boxes(*pair) for pair in curves] if has_boxes else [None]
    mine = [pair[0] for pair in curves]
    return Rule(
        name=name,
        is_again=name != control and pairs[0][0].is_again,
        seeds=tuple(trial.seed for trial, _ in pairs),
        counts=counts,
        area=float(np.mean([c.area for c in mine])),
        last=float(np.mean([c.points[-1] for c in mine])),
        n_boxes=float(np.mean([c.n_boxes[-1] for c in mine])) if has_boxes else None,
        difference=Effect.of(c.area - other.area for c, other in curves),
        last_difference=Effect.of(c.points[-1] - o.points[-1] for c, o in curves),
        equal_boxes=None if None in boxes else Effect.of(boxes),
        is_interpolated=None not in boxes
        and any(is_interpolated(c.n_boxes, o.n_boxes) for c, o in curves),
        saved=Effect.of(share_saved(c.added, c.points, o.points) for c, o in curves),
        stage_0=float(np.mean([c.points[0] - o.points[0] for c, o in curves])),
    )


@dataclass(frozen=True)
class _Curve:
    """Of one trial, each (1 + S,): stage 0 and the stages compared."""

    n_labelled: np.ndarray
    points: np.ndarray
    n_boxes: np.ndarray | None

    @property
    def area(self) -> float:
        return mean_height(self.n_labelled[1:], self.points[1:])

    @property
    def added(self) -> np.ndarray:
        return self.n_labelled - self.n_labelled[0]


def _curve(trial: TrialSummary, counts: Sequence[int], scale: float) -> _Curve:
    kept = [row for row in trial.rows[1:] if row['n_labelled'] in counts]
    rows = [trial.rows[0], *sorted(kept, key=lambda row: row['n_labelled'])]
    boxes = [row.get('n_boxes') for row in rows]
    return _Curve(
        np.array([row['n_labelled'] for row in rows]),
        scale * np.array([row[metric_name(trial.rows)] for row in rows]),
        None if None in boxes else np.array(boxes),
    )


def _at_equal_boxes(curve: _Curve, control: _Curve) -> float | None:
    return equal_cost_difference(
        curve.n_boxes, curve.points, control.n_boxes, control.points
    )


def _tested(rules: Sequence[Rule]) -> list[Rule]:
    """The same rules with what the sign-flip test and Holm say of their areas.

    The A/A row is no hypothesis about a rule: it stands beside them, and Holm passes
    it by.
    """
    tested = []
    for rule in rules:
        if len(rule.seeds) > 1:
            p = sign_flip_p(rule.difference.values)
            rule = replace(rule, p=p, p_holm=p, at_best=least_p(len(rule.seeds)))
        tested.append(rule)
    family = [i for i, r in enumerate(tested) if r.p is not None and not r.is_again]
    raised = holm([tested[i].p for i in family])
    n_left = int(np.sum(raised > ALPHA))
    for i, p in zip(family, raised, strict=True):
        at_best = min(1.0, n_left * tested[i].at_best)
        tested[i] = replace(tested[i], p_holm=float(p), at_best=at_best)
    alpha = ALPHA / max(1, len(family))
    return [replace(rule, seeds_needed=_seeds_needed(rule, alpha)) for rule in tested]


def _seeds_needed(rule: Rule, alpha: float) -> int | None:
    """With which the effect would be found, by a test that can say so at all."""
    if rule.p is None:
        return None
    needed = seeds_for_power(rule.difference.ratio, alpha)
    return needed and max(needed, seeds_for_level(alpha))
