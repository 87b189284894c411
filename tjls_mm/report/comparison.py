"""Trials side by side: which belong together, means over seeds, paired differences."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy import stats

from tjls_mm.errors import InputError, raise_first
from tjls_mm.files import write_text
from tjls_mm.report.curves import csv_text, draw_curves
from tjls_mm.report.stage_line import LABEL_COUNTS, labels_in_words, metric_name
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
        folder: Work dir of the trial.
        name: Of its row; trials of one name differ by their seed.
        seed: Of the trial.
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

    @property
    def is_ceiling(self) -> bool:
        """Whether all images are labelled from the first stage on."""
        return self.sets['initial'] == self.sets['images']


def read_summary(folder: str | Path) -> TrialSummary:
    """Read what a trial left.

    Args:
        folder: Work dir of the trial. A seed at the end of the name that the summary
            holds, as in 'tjls_seed0', is no part of the trial's name.

    Raises:
        InputError: If there is no summary, or it is not one.
    """
    path = TrialFolder(folder).summary
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
        name, seed, rows = (content[key] for key in ('name', 'seed', 'stages'))
        sets = {k: (content[k]['count'], content[k]['sha256']) for k in SETS}
        if type(seed) is not int or not rows:
            raise ValueError(f'seed {seed!r}, {len(rows)} stages')
        for row in rows:
            row['n_labelled'] + row[metric_name([row])] + 0.0
        name = name.removesuffix(f'_seed{seed}')
        return TrialSummary(
            Path(folder), name, seed, content['config_hash'], sets, rows
        )
    except (FileNotFoundError, NotADirectoryError):
        raise InputError(
            f'{path} does not exist: expected the work dir of a trial of which at '
            'least one stage is complete.'
        ) from None
    # Whatever JSON holds, and what is none.
    except (ValueError, LookupError, TypeError, AttributeError, StopIteration) as error:
        raise InputError(
            f'{path} is not the summary of a trial ({type(error).__name__}: {error}): '
            'expected name, seed, config_hash, images, initial, test and the rows of '
            "complete stages. Run the trial's command again, which writes the file "
            'anew, or leave the folder out.'
        ) from None


def comparison_problems(trials: Sequence[TrialSummary]) -> Iterator[str]:
    """Why trials must not stand in one table.

    Args:
        trials: Of ``read_summary``.

    Yields:
        Messages that name two folders and what differs: trials of one name in their
        config, or not in their seed; any two in the metric, the images or the test
        images; two of one seed in the images labelled at first, unless one has
        labelled them all.
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
                'is taken over seeds of one config. Leave one out, or compare them '
                'under different names of their work dirs.'
            )
        if metric_name(trials[0].rows) != metric_name(trial.rows):
            yield (
                f'{trials[0].folder} is measured by {metric_name(trials[0].rows)}, '
                f'{trial.folder} by {metric_name(trial.rows)}: leave one out.'
            )
        for key in ('images', 'test'):
            yield from _set_problems(key, trials[0], trial)
        if not trial.is_ceiling:
            other = first_of_seed.setdefault(trial.seed, trial)
            yield from _set_problems('initial', other, trial)


def _set_problems(key: str, one: TrialSummary, two: TrialSummary) -> Iterator[str]:
    (count, digest), (other_count, other_digest) = one.sets[key], two.sets[key]
    if (count, digest) != (other_count, other_digest):
        seed = f' with seed {one.seed}' if key == 'initial' else ''
        yield (
            f'{one.folder} and {two.folder} differ in the {SETS[key]}{seed}: {count} '
            f'(SHA-256 {str(digest)[:8]}…) against {other_count} '
            f'({str(other_digest)[:8]}…). What comes of it is no difference between '
            'methods: leave one out.'
        )


def _differing_settings(one: TrialSummary, two: TrialSummary) -> str:
    """' in a.b (1 against 2)' where the states of both trials say it, or nothing."""
    try:
        states = (TrialFolder(trial.folder).state.read_text() for trial in (one, two))
        old, new = (json.loads(state)['config'] for state in states)
        keys = sorted(k for k in {*old, *new} if old.get(k) != new.get(k))
        shown = [f'{k} ({old.get(k)!r} against {new.get(k)!r})' for k in keys[:3]]
    # A hint beside a message that stands without it.
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return ''
    more = [f'{len(keys) - 3} more'] if len(keys) > 3 else []
    return f' in {", ".join([*shown, *more])}' if shown else ''


def read_trials(folders: Sequence[str | Path]) -> list[TrialSummary]:
    """Read trials that may stand in one table.

    Args:
        folders: Their work dirs.

    Raises:
        InputError: If one has no summary, or they do not belong together.
    """
    trials = [read_summary(folder) for folder in folders]
    raise_first(comparison_problems(trials))
    return trials


def mean_rows(trials: Sequence[TrialSummary]) -> dict[str, list[dict]]:
    """Mean and deviation over the seeds of every name, by labelled images.

    Args:
        trials: Of ``read_trials``.

    Returns:
        Per name, rows with ``n_labelled``, the mean of ``n_boxes`` where rows have
        it, the metric's mean under its name, its sample deviation under ``std`` (0
        for one seed) and ``seeds``, those that reached so many labelled images.
    """
    means = {}
    for name in dict.fromkeys(trial.name for trial in trials):
        rows = [row for trial in trials if trial.name == name for row in trial.rows]
        metric = metric_name(rows)
        rows.sort(key=_n_labelled)
        means[name] = []
        for count, group in groupby(rows, _n_labelled):
            group = list(group)
            values = [row[metric] for row in group]
            counts = [key for key in LABEL_COUNTS if all(key in row for row in group)]
            means[name].append(
                {
                    'n_labelled': count,
                    **{k: round(np.mean([row[k] for row in group])) for k in counts},
                    metric: float(np.mean(values)),
                    'std': float(np.std(values, ddof=1)) if values[1:] else 0.0,
                    'seeds': len(values),
                }
            )
    return means


def _n_labelled(row: Mapping) -> int:
    return row['n_labelled']


def find_control(names: Sequence[str]) -> str | None:
    """The one name that ends with 'random', or begins so if none does."""
    for pattern in (r'random\Z', r'\Arandom'):
        found = [name for name in names if re.search(pattern, name)]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def paired_rows(trials: Sequence[TrialSummary], control: str) -> dict[str, list[dict]]:
    """Differences to a control with the same seed and as many labelled images.

    Both have the same images at first: what a seed brings to both is not in their
    difference, though it is in the deviations of either.

    Args:
        trials: Of ``read_trials``.
        control: Name of the control.

    Returns:
        Per other name, rows with ``n_labelled``, the mean difference under the
        metric's name, its standard ``error`` (None for one pair) and ``pairs``.
    """
    base = {
        (trial.seed, row['n_labelled']): row[metric_name([row])]
        for trial in trials
        if trial.name == control
        for row in trial.rows
    }
    pairs: dict[str, dict[int, list[float]]] = {}
    for trial in trials:
        metric = metric_name(trial.rows)
        for row in trial.rows if trial.name != control else []:
            count = row['n_labelled']
            if (trial.seed, count) in base:
                differences = pairs.setdefault(trial.name, {}).setdefault(count, [])
                differences.append(row[metric] - base[trial.seed, count])
    return {
        name: [
            {
                'n_labelled': count,
                metric_name(trials[0].rows): float(np.mean(values)),
                'error': float(stats.sem(values)) if values[1:] else None,
                'pairs': len(values),
            }
            for count, values in sorted(by_count.items())
        ]
        for name, by_count in pairs.items()
    }


def comparison_tables(
    trials: Sequence[TrialSummary], names: Sequence[str] = (), n_seeds: int = 0
) -> list[tuple[str, list[list[str]]]]:
    """What ``print_comparison`` prints and ``write_comparison`` writes.

    Args:
        trials: Of ``read_trials``; at least one.
        names: Columns in order, those without a trial too; by default as the trials
            come.
        n_seeds: That every name is to have; by default the most that one has.

    Returns:
        Titles and cells, the first row being the header: one row per number of
        labelled images, one column per name. First means ± sample deviations; then,
        where one name is the random control, mean paired differences to it ±
        standard errors and the number of pairs.
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
        names = [name for name in names if name != control]
        tables.append(
            (
                f'{metric} less that of {control} with the same seed: mean ± standard '
                'error of n pairs',
                _cells(names, paired, pair_cell),
            )
        )
    return tables


def _cells(names: Sequence[str], rows: Mapping[str, list[dict]], cell) -> list:
    columns = [{r['n_labelled']: cell(r) for r in rows.get(n, [])} for n in names]
    counts = sorted({count for column in columns for count in column})
    table = [[str(c), *(column.get(c, '') for column in columns)] for c in counts]
    return [['labelled', *names], *table]


def print_comparison(
    trials: Sequence[TrialSummary], names: Sequence[str] = (), n_seeds: int = 0
) -> None:
    """Print ``comparison_tables``.

    What all names begin with, up to an underscore, stands in the title.
    """
    console = Console(width=max(100, Console().width))
    for title, (header, *rows) in comparison_tables(trials, names, n_seeds):
        shared = os.path.commonprefix(header[1:]) if len(header) > 2 else ''
        shared = shared[: shared.rfind('_') + 1]
        # A table would fold a title to its own width.
        console.print(f'{title} ({shared}…)' if shared else title, highlight=False)
        table = Table()
        for name in header:
            name = name.removeprefix(shared)
            table.add_column(name, justify='right', overflow='fold')
        for cells in rows:
            table.add_row(*cells)
        console.print(table)


def write_comparison(
    folder: Path,
    title: str,
    trials: Sequence[TrialSummary],
    names: Sequence[str] = (),
    n_seeds: int = 0,
) -> None:
    """Write ``table.md``, ``table.csv`` and ``curves.png``, each atomically.

    Args:
        folder: Where to.
        title: Of the whole.
        trials: Of ``read_trials``; at least one.
        names: Columns in order, see ``comparison_tables``. The CSV file has a row
            per name and number of labelled images, numbers only.
        n_seeds: That every name is to have.
    """
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
    """Draw means as curves, as far as all seeds of a name have come.

    Args:
        path: Of the PNG file, replaced atomically.
        means: Of ``mean_rows``.
    """
    curves = {}
    for name, rows in means.items():
        # A mean over other seeds than the point before would bend the curve.
        most = max(row['seeds'] for row in rows)
        curves[name] = [row for row in rows if row['seeds'] == most]
    draw_curves(path, curves)
