"""What was measured stage by stage: means over seeds and paired differences."""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from scipy import stats

from tjls_mm.report.stage_line import LABEL_COUNTS, labels_in_words, metric_name
from tjls_mm.report.statistics import bootstrap_interval
from tjls_mm.report.trial_summary import TrialSummary


def _by_name(values: Iterable[tuple[str, int, object]], row) -> dict[str, list[dict]]:
    """Per name, ``row(n, values)`` of every number n of labelled images, in order."""
    groups: dict[str, dict[int, list]] = {}
    for name, n_labelled, value in values:
        groups.setdefault(name, {}).setdefault(n_labelled, []).append(value)
    return {
        name: [row(n_labelled, found) for n_labelled, found in sorted(group.items())]
        for name, group in groups.items()
    }


def mean_rows(trials: Sequence[TrialSummary]) -> dict[str, list[dict]]:
    """Mean and deviation over the seeds of every name, by labelled images.

    Rows have ``n_labelled``, the mean ``n_boxes`` where there are boxes, the metric's
    mean under its name, its sample deviation ``std`` (0 for one seed), the ends of its
    95 % interval ``low`` and ``high`` (None for one seed) and ``seeds``, those that
    reached so many labelled images.
    """

    def mean_row(count: int, rows: list[dict]) -> dict:
        metric = metric_name(rows)
        values = sorted(row[metric] for row in rows)
        low, high = bootstrap_interval(values) or (None, None)
        counts = [key for key in LABEL_COUNTS if all(key in row for row in rows)]
        return {
            'n_labelled': count,
            **{key: round(np.mean([row[key] for row in rows])) for key in counts},
            metric: float(np.mean(values)),
            'std': float(np.std(values, ddof=1)) if values[1:] else 0.0,
            'low': low,
            'high': high,
            'seeds': len(values),
        }

    rows = ((t.name, row['n_labelled'], row) for t in trials for row in t.rows)
    return _by_name(rows, mean_row)


def paired_rows(trials: Sequence[TrialSummary], control: str) -> dict[str, list[dict]]:
    """Differences to a control with the same seed and as many labelled images.

    What a seed brings to both is not in their difference. Rows of every other name have
    ``n_labelled``, the mean difference under the metric's name, its standard ``error``
    (None for one pair) and ``pairs``.
    """
    metric = metric_name(trials[0].rows)
    rows = [(t, row['n_labelled'], row[metric]) for t in trials for row in t.rows]
    base = {(t.seed, count): v for t, count, v in rows if t.name == control}

    def pair_row(count: int, group: list[float]) -> dict:
        error = float(stats.sem(group)) if group[1:] else None
        mean = float(np.mean(group))
        return {'n_labelled': count, metric: mean, 'error': error, 'pairs': len(group)}

    differences = (
        (t.name, count, value - base[t.seed, count])
        for t, count, value in rows
        if t.name != control and (t.seed, count) in base
    )
    return _by_name(differences, pair_row)


def mean_table(
    means: Mapping[str, list[dict]], names: Sequence[str], n_seeds: int = 0
) -> tuple[str, list[list[str]]]:
    """Title and cells of ``mean_rows``: a row per number of labelled images.

    Args:
        means: At least one name.
        names: Columns in order, in ``means`` or not.
        n_seeds: That every name is to have; by default the most that one has.
    """
    metric = metric_name(next(iter(means.values())))
    most = n_seeds or max(row['seeds'] for rows in means.values() for row in rows)

    def mean_cell(row: dict) -> str:
        few = f' ({row["seeds"]} of {most} seeds)' if row['seeds'] < most else ''
        spread = f' ± {row["std"]:.4f}' if row['seeds'] > 1 else ''
        return f'{row[metric]:.4f}{spread}{few}{labels_in_words(row)}'

    seeds = f', {most} seeds: mean ± sample deviation' if most > 1 else ''
    return f'{metric} by labelled images{seeds}', _cells(names, means, mean_cell)


def paired_table(
    trials: Sequence[TrialSummary], names: Sequence[str], control: str
) -> tuple[str, list[list[str]]]:
    """Title and cells of ``paired_rows``; header only where there are no pairs."""
    metric, paired = metric_name(trials[0].rows), paired_rows(trials, control)

    def pair_cell(row: dict) -> str:
        error = '' if row['error'] is None else f' ± {row["error"]:.4f}'
        return f'{row[metric]:+.4f}{error} (n {row["pairs"]})'

    others = [name for name in names if name != control]
    title = f'{metric} less that of {control} with the same seed'
    title += ': mean ± standard error of n pairs'
    return title, _cells(others, paired, pair_cell)


def short_table(
    means: Mapping[str, list[dict]], scale: float, short: Mapping[str, str]
) -> list[list[str]]:
    """Header and cells of ``mean_rows`` for a terminal: a row per name, in points.

    Rules are many and stages few. ``scale`` is points per unit of the metric, ``short``
    has the names as they are to be shown.
    """
    metric = metric_name(next(iter(means.values())))
    counts = sorted({row['n_labelled'] for rows in means.values() for row in rows})
    table = [['labelled', *map(str, counts)]]
    for name, rows in means.items():
        most, cells = max(row['seeds'] for row in rows), dict.fromkeys(counts, '')
        for row in rows:
            spread = f' ± {scale * row["std"]:.1f}' if row['seeds'] > 1 else ''
            few = f' (n {row["seeds"]})' if row['seeds'] < most else ''
            cells[row['n_labelled']] = f'{scale * row[metric]:.1f}{spread}{few}'
        table.append([short[name], *cells.values()])
    return table


def _cells(names: Sequence[str], rows: Mapping[str, list[dict]], cell) -> list:
    columns = [{r['n_labelled']: cell(r) for r in rows.get(n, [])} for n in names]
    counts = sorted({count for column in columns for count in column})
    table = [[str(c), *(column.get(c, '') for column in columns)] for c in counts]
    return [['labelled', *names], *table]
