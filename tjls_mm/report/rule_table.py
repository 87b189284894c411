"""The comparison of rules as people read it: a row and a line per rule, and notes."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from tjls_mm.report.stage_line import metric_name
from tjls_mm.report.statistics import least_p, seeds_for_level
from tjls_mm.report.trial_summary import TrialSummary
from tjls_mm.report.verdicts import (
    ALPHA,
    Effect,
    Rule,
    common_counts,
    measure,
    paired_trials,
    points_per_unit,
)


def rule_cells(control: Rule, rules: Sequence[Rule], short: Mapping) -> list[list[str]]:
    """Header and rows, in points: of the control, then of the others.

    A name says so where its row is of other stages than the control's.

    Args:
        control: And ``rules``, of ``compare_with``.
        short: Names as they are to be shown.
    """
    less = f'less {short[control.name]}'
    header = ['', 'seeds', 'area', f'area {less}', 'p (Holm)', f'last {less}']
    header += ['images saved', 'boxes', 'at equal boxes']
    rows = []
    for rule in (control, *rules):
        name = f'{short[rule.name]} (A/A)' if rule.is_again else short[rule.name]
        if rule.counts != control.counts:
            name += f' ({counts_in_words(rule.counts)})'
        row = [name, str(len(rule.seeds)), f'{rule.area:.1f}']
        if rule is control:
            row += [''] * 4
        else:
            row += [
                _points(rule.difference),
                '' if rule.p_holm is None else f'{rule.p_holm:.3f}',
                _points(rule.last_difference),
                _per_cent(rule.saved),
            ]
        row.append('' if rule.n_boxes is None else f'{rule.n_boxes:.0f}')
        known = rule.equal_boxes and rule is not control
        rows.append([*row, _points(rule.equal_boxes) if known else ''])
    width = len(header) if any(row[-2] for row in rows) else -2
    return [cells[:width] for cells in (header, *rows)]


def counts_in_words(counts: Sequence[int]) -> str:
    """'over 400 to 850' or 'at 400' of labelled images, ascending."""
    ends = f'over {counts[0]} to {counts[-1]}'
    return ends if counts[1:] else f'at {counts[0]}'


def plain_cells(
    trials: Sequence[TrialSummary], counts: Sequence[int], short: Mapping
) -> list[list[str]]:
    """Header and rows without a control, at numbers of labelled images that all have.

    Rows are ordered by name.
    """
    rows = []
    for name in sorted({trial.name for trial in trials}):
        rule = measure(trials, name, name, counts)
        boxes = '' if rule.n_boxes is None else f'{rule.n_boxes:.0f}'
        row = [short[name], str(len(rule.seeds))]
        rows.append([*row, f'{rule.area:.1f}', f'{rule.last:.1f}', boxes])
    return [['', 'seeds', 'area', 'last', 'boxes'], *rows]


def verdict_lines(
    control: Rule, rules: Sequence[Rule], short: Mapping, margin: float
) -> list[str]:
    """A sentence or two per rule, the A/A row first; ``margin`` in points."""
    name = short[control.name]
    return [
        f'{short[rule.name]}: {_again_line(rule)}'
        if rule.is_again
        else f'{short[rule.name]}: {_rule_line(rule, name, margin)}'
        for rule in rules
    ]


def _again_line(rule: Rule) -> str:
    found = _evidence(rule)
    if rule.p is None:
        return f'A/A, {found}. One seed cannot tell whether this is null.'
    if rule.p <= ALPHA:
        return (
            f'A/A IS NOT NULL, {found}. Something is wrong with the comparison (or '
            'this is the one table in twenty): trust no row before it is found.'
        )
    if rule.at_best > ALPHA:
        return f'A/A, {found}. Too few seeds to tell whether this is null.'
    return f'A/A is null, as it must be, {found}.'


def _rule_line(rule: Rule, control: str, margin: float) -> str:
    line = f'{rule.verdict(control)}, {_evidence(rule)}.'
    if rule.p_holm is not None:
        line += f' {_not_worse(rule, margin)}.'
    if rule.saved.mean > 0:
        line += f' Saves {_per_cent(rule.saved)} of the images added.'
    if rule.p_holm is not None and rule.p_holm > ALPHA:
        n = rule.seeds_needed
        seeds = 'more than 1000 seeds' if n is None else f'{n} seeds'
        line += f' 80 % power for this difference: {seeds}.'
    return line


def _evidence(rule: Rule) -> str:
    """'+1.7 points (1.1 to 2.3), 7 of 7 seeds above, p 0.031'."""
    mean, *interval = _points(rule.difference).split(' ', 1)
    text = ' '.join([mean, 'points', *interval])
    if rule.p_holm is None:
        return text
    above = f'{rule.n_above} of {len(rule.seeds)} seeds above'
    return f'{text}, {above}, p {rule.p_holm:.3f}'


def _not_worse(rule: Rule, margin: float) -> str:
    found = rule.not_worse(margin)
    if found is None:
        return 'Too few seeds to say whether it is meaningfully worse'
    size = f'(lower end {rule.difference.interval[0]:.2f}, margin {margin:g})'
    if found:
        return f'Not meaningfully worse {size}'
    is_worse = rule.p_holm <= ALPHA and rule.difference.interval[1] < -margin
    return f'{"Meaningfully" if is_worse else "May be meaningfully"} worse {size}'


def _points(effect: Effect) -> str:
    """'+1.7 (1.1 to 2.3)'; without the interval for one seed."""
    # Adding 0 turns -0.0 into 0.0.
    mean, *ends = (round(v, 1) + 0.0 for v in (effect.mean, *(effect.interval or ())))
    return f'{mean:+.1f}' + (f' ({ends[0]:.1f} to {ends[1]:.1f})' if ends else '')


def _per_cent(effect: Effect) -> str:
    """'38 % (22 to 51)' of an effect of shares."""
    mean, *ends = (100 * v for v in (effect.mean, *(effect.interval or ())))
    return f'{mean:.0f} %' + (f' ({ends[0]:.0f} to {ends[1]:.0f})' if ends else '')


def rule_notes(
    trials: Sequence[TrialSummary],
    control: Rule,
    rules: Sequence[Rule],
    short: Mapping,
) -> Iterator[str]:
    """What to know before believing the table: what is not, or not equally, in it."""
    name = short[control.name]
    compared = {control.name, *(rule.name for rule in rules)}
    for other in sorted({trial.name for trial in trials} - compared):
        yield f'{short[other]}: no seed and stage in common with {name}, not compared.'
    for rule in (control, *rules):
        yield from _left_out(trials, rule, control, short)
        if abs(rule.stage_0) > 1e-6:
            yield (
                f'{short[rule.name]}: {rule.stage_0:+.1f} points at stage 0, before '
                'any pick: its differences are of its learner as well as of its picks.'
            )
    yield from _interpolated(rules, short)
    yield from _falls(trials, control, name)
    yield from _too_few(rules)
    if not any(rule.is_again for rule in rules):
        yield (
            'No A/A row. A second Random (method.query.draw=1, in a work dir '
            'NAME_random_again_seedK) would show what chance alone does here.'
        )
    if rules and max(len(rule.seeds) for rule in rules) < 2:
        yield 'One seed: no intervals, no tests, no verdicts.'


def _interpolated(rules: Sequence[Rule], short: Mapping) -> Iterator[str]:
    names = [short[rule.name] for rule in rules if rule.is_interpolated]
    if names:
        yield (
            f'At equal boxes, {", ".join(names)}: in some seed one side has no stage '
            'after stage 0 near the boxes that both reach. Its value there is read off '
            'a straight line over log boxes; more and smaller stages would measure it.'
        )


def _too_few(rules: Sequence[Rule]) -> Iterator[str]:
    """Numbers of seeds with which no verdict is possible, whatever the trials say."""
    tested = [rule for rule in rules if rule.p is not None and not rule.is_again]
    open_ended = [rule for rule in tested if rule.p_holm > ALPHA]
    for n, at_best in sorted({(len(r.seeds), r.at_best) for r in open_ended}):
        if at_best > ALPHA:
            holm = f', {at_best:.2f} with Holm over {len(tested)} rules'
            digits = 2 if least_p(n) > 0.01 else 3
            best = f'{least_p(n):.{digits}f}{holm if at_best > least_p(n) else ""}'
            needed = seeds_for_level(ALPHA / len(tested))
            yield (
                f'{n} seeds can at best give p = {best}: it takes {needed} to call a '
                'rule better or worse.'
            )


def _left_out(trials, rule: Rule, control: Rule, short: Mapping) -> Iterator[str]:
    """Seeds and stages of a name that its row does not stand for."""
    mine = [trial for trial in trials if trial.name == rule.name]
    pairs = paired_trials(trials, rule.name, control.name)
    behind = sorted({one.seed for one, _ in pairs} - {*rule.seeds})
    if behind:
        whose = '' if rule is control else f', or {short[control.name]} with that seed,'
        yield (
            f'{short[rule.name]}: without seed {_listed(behind)} (it{whose} has not '
            f'all of {_listed(rule.counts)} labelled images).'
        )
    seeds = sorted({trial.seed for trial in mine} - {*rule.seeds, *behind})
    if seeds:
        listed = ', '.join(map(str, seeds))
        one_stage = any(len(trial.rows) < 2 for trial in mine)
        reason = 'not beyond stage 0, or ' if one_stage else ''
        yield (
            f'{short[rule.name]}: without seed {listed} ({reason}'
            f'no such seed of {short[control.name]}).'
        )
    kept = [trial for pair in pairs for trial in pair if trial.seed in rule.seeds]
    reached = {row['n_labelled'] for trial in kept for row in trial.rows[1:]}
    if missing := sorted(reached - {*rule.counts}):
        yield (
            f'{short[rule.name]}: compared at {_listed(rule.counts)} labelled images; '
            f'not every seed of both has {_listed(missing)}.'
        )


def nothing_common(trials: Sequence[TrialSummary], name: str) -> str:
    """Why a control, as ``name`` in words, has no row, of its own trials only."""
    several = [trial for trial in trials if len(trial.rows) > 1]
    why = 'has stage 0 only'
    if several and not common_counts(several):
        ordered = sorted(several, key=lambda trial: trial.seed)
        found = (
            f'seed {t.seed} has {_listed([r["n_labelled"] for r in t.rows[1:]])}'
            for t in ordered
        )
        why = f'has no number of labelled images in all seeds ({"; ".join(found)})'
    return f'The control, {name}, {why}: no differences, no verdicts.'


def _listed(counts: Sequence[int]) -> str:
    return ', '.join(map(str, counts))


def _falls(trials, control: Rule, name: str) -> Iterator[str]:
    """Where the control's mean falls with more labels."""
    metric, scale = metric_name(trials[0].rows), points_per_unit(trials)
    rows = [r for t in trials if t.name == control.name for r in t.rows]
    means = [
        scale * np.mean([r[metric] for r in rows if r['n_labelled'] == count])
        for count in control.counts
    ]
    for i in np.flatnonzero(np.diff(means) < 0):
        yield (
            f'{name} falls from {means[i]:.1f} to {means[i + 1]:.1f} points between '
            f'{control.counts[i]} and {control.counts[i + 1]} labelled images. More '
            'labels should not hurt: unless it is noise the learner is not converged, '
            'and that flatters every rule.'
        )


def rule_numbers(
    control: Rule, rules: Sequence[Rule], margin: float
) -> list[dict[str, object]]:
    """Rows of ``rules.csv``: differences in points, None where nothing is known."""
    return [_numbers(rule, control, margin) for rule in (control, *rules)]


def _numbers(rule: Rule, control: Rule, margin: float) -> dict[str, object]:
    row = {
        'name': rule.name,
        'role': 'A/A' if rule.is_again else 'rule',
        'seeds': ' '.join(map(str, rule.seeds)),
        'n_labelled': ' '.join(map(str, rule.counts)),
        'area': rule.area,
        'last': rule.last,
        'n_boxes': rule.n_boxes,
    }
    effects = {
        'area_difference': rule.difference,
        'last_difference': rule.last_difference,
        'equal_boxes_difference': rule.equal_boxes,
        'images_saved': rule.saved,
    }
    is_control = rule is control
    for name, effect in effects.items():
        known = None if is_control else effect
        low, high = (known and known.interval) or (None, None)
        row |= {name: known and known.mean, f'{name}_low': low, f'{name}_high': high}
    row |= {'p': rule.p, 'p_holm': rule.p_holm, 'verdict': None}
    row |= {'not_meaningfully_worse': None, 'seeds_for_80_power': rule.seeds_needed}
    if is_control:
        return {**row, 'role': 'control'}
    row['not_meaningfully_worse'] = rule.not_worse(margin)
    return {**row, 'verdict': rule.verdict(control.name)}
