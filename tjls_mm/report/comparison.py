"""Trials side by side: which belong together, means over seeds, paired differences."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import stats

from tjls_mm.errors import InputError, raise_first
from tjls_mm.files import read_json, write_text
from tjls_mm.report.curves import csv_text, draw_curves
from tjls_mm.report.stage_line import (
    LABEL_COUNTS,
    labels_in_words,
    metric_name,
    text_table,
    wide_console,
)
from tjls_mm.stage_folder import TrialFolder

SETS = {
    'images': 'images (labelled and pool together)',
    'test': 'test images',
    'initial': 'images labelled at first',
}
"""Sets that a summary counts and hashes, in words."""


@dataclass(frozen=True)
class TrialSummary:
    """What a trial says of itself in ``summary.json``.

    Attributes:
        name: Trials of one name differ by their seed.
        config_hash: Of what decides about results, the seed left out.
        sets: 'images', 'test' and 'initial' to (count, SHA-256) of the image_ids.
        rows: Of ``stage_row``, one per complete stage, at least one.
    """

    folder: Path
    name: str
    seed: int
    config_hash: str
    sets: dict[str, tuple[int, str]]
    rows: list[dict]


def read_summary(folder: str | Path) -> TrialSummary:
    """What a trial left, else InputError; its name without '_seed0' at the end."""
    path = TrialFolder(folder).summary
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        name, seed, rows = (content[key] for key in ('name', 'seed', 'stages'))
        sets = {k: (content[k]['count'], content[k]['sha256']) for k in SETS}
        if type(seed) is not int or not rows:
            raise ValueError(f'seed {seed!r}, {len(rows)} stages')
        for row in rows:
            row['n_labelled'] + row[metric_name([row])] + 0.0
        name, config = name.removesuffix(f'_seed{seed}'), content['config_hash']
        return TrialSummary(Path(folder), name, seed, config, sets, rows)
    except (FileNotFoundError, NotADirectoryError):
        expected = 'expected the work dir of a trial with at least one complete stage'
        raise InputError(f'{path} does not exist: {expected}.') from None
    # Whatever JSON holds, and what is none.
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise InputError(
            f'{path} is not the summary of a trial ({type(error).__name__}: {error}): '
            'expected name, seed, config_hash, images, initial, test and the rows of '
            "complete stages. Run the trial's command again or leave the folder out."
        ) from None


def comparison_problems(trials: Sequence[TrialSummary]) -> Iterator[str]:
    """Why trials must not stand in one table.

    Trials of one name differ in their seed and nothing else, any two in neither metric,
    images nor test images, and two of one seed not in the images labelled at first,
    unless one has labelled them all. Messages name two folders and what differs.
    """
    first_of_name: dict[str, TrialSummary] = {}
    first_of_seed: dict[int, TrialSummary] = {}
    seen: dict[tuple[str, int], TrialSummary] = {}
    for trial in trials:
        other = seen.setdefault((trial.name, trial.seed), trial)
        if other is not trial:
            yield (
                f'{other.folder} and {trial.folder} are both {trial.name!r} with seed '
                f'{trial.seed}: a mean is taken over different seeds. Leave one out.'
            )
        other = first_of_name.setdefault(trial.name, trial)
        if other.config_hash != trial.config_hash:
            yield (
                f'{other.folder} and {trial.folder} are both called {trial.name!r}, '
                f'but their configs differ{_differing_settings(other, trial)}: a mean '
                'is over seeds of one config. Leave one out, or give the work dirs '
                'different names.'
            )
        metric, found = metric_name(trials[0].rows), metric_name(trial.rows)
        if metric != found:
            yield (
                f'{trials[0].folder} is measured by {metric}, {trial.folder} by '
                f'{found}: leave one out.'
            )
        others = {'images': trials[0], 'test': trials[0]}
        # A ceiling has all images labelled from the first stage on.
        if trial.sets['initial'] != trial.sets['images']:
            others['initial'] = first_of_seed.setdefault(trial.seed, trial)
        for key, other in others.items():
            if other.sets[key] != trial.sets[key]:
                sets = (other.sets[key], trial.sets[key])
                one, two = (f'{count} (SHA-256 {str(h)[:8]}…)' for count, h in sets)
                seed = f' with seed {trial.seed}' if key == 'initial' else ''
                yield (
                    f'{other.folder} and {trial.folder} differ in the {SETS[key]}'
                    f'{seed}: {one} against {two}. That says nothing of methods: leave '
                    'one out.'
                )


def _differing_settings(one: TrialSummary, two: TrialSummary) -> str:
    """' in a.b (1 against 2)' where the states of both trials say it, or nothing."""
    try:
        states = (TrialFolder(trial.folder).state for trial in (one, two))
        old, new = (read_json(state)['config'] for state in states)
        keys = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
    # A hint beside a message that stands without it.
    except (OSError, LookupError, TypeError, AttributeError):
        return ''
    shown = [f'{k} ({old.get(k)!r} against {new.get(k)!r})' for k in keys[:3]]
    if len(keys) > 3:
        shown.append(f'{len(keys) - 3} more')
    return f' in {", ".join(shown)}' if shown else ''


def read_trials(folders: Sequence[str | Path]) -> list[TrialSummary]:
    """Trials of these work dirs; InputError unless they may stand in one table."""
    trials = [read_summary(folder) for folder in folders]
    raise_first(comparison_problems(trials))
    return trials


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
    mean under its name, its sample deviation ``std`` (0 for one seed) and ``seeds``,
    those that reached so many labelled images.
    """

    def mean_row(count: int, rows: list[dict]) -> dict:
        metric = metric_name(rows)
        values = [row[metric] for row in rows]
        counts = [key for key in LABEL_COUNTS if all(key in row for row in rows)]
        return {
            'n_labelled': count,
            **{key: round(np.mean([row[key] for row in rows])) for key in counts},
            metric: float(np.mean(values)),
            'std': float(np.std(values, ddof=1)) if values[1:] else 0.0,
            'seeds': len(values),
        }

    rows = ((t.name, row['n_labelled'], row) for t in trials for row in t.rows)
    return _by_name(rows, mean_row)


def find_control(names: Sequence[str]) -> str | None:
    """The one name that ends with 'random', or begins so if none does."""
    found = [name for name in names if name.endswith('random')]
    found = found or [name for name in names if name.startswith('random')]
    return found[0] if len(found) == 1 else None


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


def comparison_tables(
    trials: Sequence[TrialSummary], names: Sequence[str] = (), n_seeds: int = 0
) -> list[tuple[str, list[list[str]]]]:
    """Titles and cells to print or write, the header first.

    A row per number of labelled images, a column per name: means; then, where one name
    is the random control, mean paired differences to it.

    Args:
        trials: At least one.
        names: Columns in order, with or without trials; by default as trials come.
        n_seeds: That every name is to have; by default the most that one has.
    """
    metric = metric_name(trials[0].rows)
    means = mean_rows(trials)
    names = list(names or means)
    most = n_seeds or max(row['seeds'] for rows in means.values() for row in rows)

    def mean_cell(row: dict) -> str:
        few = f' ({row["seeds"]} of {most} seeds)' if row['seeds'] < most else ''
        spread = f' ± {row["std"]:.4f}' if row['seeds'] > 1 else ''
        return f'{row[metric]:.4f}{spread}{few}{labels_in_words(row)}'

    def pair_cell(row: dict) -> str:
        error = '' if row['error'] is None else f' ± {row["error"]:.4f}'
        return f'{row[metric]:+.4f}{error} (n {row["pairs"]})'

    seeds = f', {most} seeds: mean ± sample deviation' if most > 1 else ''
    tables = [(f'{metric} by labelled images{seeds}', _cells(names, means, mean_cell))]
    control = find_control(names)
    paired = paired_rows(trials, control) if control else {}
    if paired:
        names.remove(control)
        title = f'{metric} less that of {control} with the same seed'
        title += ': mean ± standard error of n pairs'
        tables.append((title, _cells(names, paired, pair_cell)))
    return tables


def _cells(names: Sequence[str], rows: Mapping[str, list[dict]], cell) -> list:
    columns = [{r['n_labelled']: cell(r) for r in rows.get(n, [])} for n in names]
    counts = sorted({count for column in columns for count in column})
    table = [[str(c), *(column.get(c, '') for column in columns)] for c in counts]
    return [['labelled', *names], *table]


def print_comparison(trials, names=(), n_seeds: int = 0) -> None:
    """Print ``comparison_tables``; what all names begin with stands in the title."""
    console = wide_console()
    for title, (header, *rows) in comparison_tables(trials, names, n_seeds):
        shared = os.path.commonprefix(header[1:]) if len(header) > 2 else ''
        shared = shared[: shared.rfind('_') + 1]
        # A table would fold a title to its own width.
        console.print(f'{title} ({shared}…)' if shared else title, highlight=False)
        console.print(text_table([name.removeprefix(shared) for name in header], rows))


def write_comparison(folder: Path, title: str, trials, names=(), n_seeds=0) -> None:
    """Write ``table.md``, ``table.csv`` (numbers) and ``curves.png``, atomically."""
    lines = [f'# {title}']
    for caption, (header, *rows) in comparison_tables(trials, names, n_seeds):
        rule = ['--:'] * len(header)
        table = [f'| {" | ".join(cells)} |' for cells in (header, rule, *rows)]
        lines += ['', f'{caption}.', '', *table]
    write_text(folder / 'table.md', '\n'.join(lines) + '\n')
    means = mean_rows(trials)
    rows = [{'name': name, **row} for name, rows in means.items() for row in rows]
    write_text(folder / 'table.csv', csv_text(rows))
    draw_means(folder / 'curves.png', means)


def draw_means(path: Path, means: Mapping[str, list[dict]]) -> None:
    """Draw rows of ``mean_rows``, as far as all seeds of a name have come."""
    curves = {}
    for name, rows in means.items():
        # A mean over other seeds than the point before would bend the curve.
        most = max(row['seeds'] for row in rows)
        curves[name] = [row for row in rows if row['seeds'] == most]
    draw_curves(path, curves)
