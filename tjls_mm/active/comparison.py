"""Put trials side by side: means over seeds, in tables and a picture."""

import collections
import csv
import io
import json
import os
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tjls_mm.active.report import (
    LABEL_COUNTS,
    draw_curves,
    labels_in_words,
    metric_name,
)
from tjls_mm.errors import InputError
from tjls_mm.files import write_text


def read_trials(folders: Sequence[str | Path]) -> dict[tuple[str, int], list[dict]]:
    """Rows of complete stages by (name, seed).

    Args:
        folders: Work dirs of trials.

    Raises:
        InputError: If one holds no summary.
    """
    trials = {}
    for folder in folders:
        path = Path(folder) / 'summary.json'
        if not path.exists():
            raise InputError(
                f'{path} does not exist: expected the work dir of a trial of which '
                'at least one stage is complete.'
            )
        summary = json.loads(path.read_text(encoding='utf-8'))
        suffix = f'_seed{summary["seed"]}'
        name = summary['name'].removesuffix(suffix)
        if (name, summary['seed']) in trials:
            raise InputError(f'{folder}: {name} with seed {summary["seed"]} is twice.')
        trials[name, summary['seed']] = summary['stages']
    return trials


def mean_rows(
    trials: Mapping[tuple[str, int], list[dict]], incomplete: bool = False
) -> dict[str, list[dict]]:
    """Mean and deviation over the seeds of every name.

    Args:
        trials: Of ``read_trials``.
        incomplete: Keep stages that only some of the seeds have reached.

    Returns:
        Per name, rows with ``stage``, ``n_labelled``, mean counts of what the task
        labels (``n_boxes``), the metric's mean under its name, its sample deviation
        under ``std`` (0 for one seed) and ``seeds``.
    """
    groups = collections.defaultdict(list)
    for (name, _), rows in trials.items():
        groups[name].append(rows)
    means = {}
    for name, group in groups.items():
        metric = metric_name(group[0])
        means[name] = []
        last = max if incomplete else min
        for stage in range(last(map(len, group))):
            rows = [rows[stage] for rows in group if stage < len(rows)]
            values = [row[metric] for row in rows]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            means[name].append(
                {
                    'stage': rows[0]['stage'],
                    'n_labelled': rows[0]['n_labelled'],
                    **{
                        key: round(statistics.mean(row[key] for row in rows))
                        for key in LABEL_COUNTS
                        if key in rows[0]
                    },
                    metric: statistics.mean(values),
                    'std': spread,
                    'seeds': len(values),
                }
            )
    return means


def print_comparison(means: Mapping[str, list[dict]]) -> None:
    """One row per number of labelled images, one column per method.

    What all names begin with, up to an underscore, stands in the title.
    """
    metric = metric_name(next(iter(means.values())))
    shared = os.path.commonprefix(list(means)) if len(means) > 1 else ''
    shared = shared[: shared.rfind('_') + 1]
    of = f' ({shared}…)' if shared else ''
    table = Table(title=f'{metric} by labelled images{of}')
    table.add_column('labelled', justify='right')
    for name in means:
        name = name.removeprefix(shared)
        table.add_column(name, justify='right', overflow='fold')
    for count in _labelled_counts(means):
        cells = [str(count)]
        for rows in means.values():
            row = _row_at(rows, count)
            cells.append(_mean(row) + labels_in_words(row) if row else '')
        table.add_row(*cells)
    Console(width=max(100, Console().width)).print(table)


def variant_table(means: Mapping[str, list[dict]], n_seeds: int) -> list[list[str]]:
    """One row per variant, one column per number of labelled images.

    Args:
        means: Of ``mean_rows``; a variant without results has no rows.
        n_seeds: Seeds that a variant is to be run with.

    Returns:
        Cells, the first row being the header. A cell is mean ± sample deviation,
        and says how many seeds it has where some are missing.
    """
    counts = _labelled_counts(means)
    table = [['labelled', *map(str, counts)]]
    for name, rows in means.items():
        cells = [name]
        for count in counts:
            row = _row_at(rows, count)
            cell = _mean(row) if row else ''
            if row and row['seeds'] < n_seeds:
                cell += f' ({row["seeds"]} of {n_seeds} seeds)'
            cells.append(cell)
        table.append(cells)
    return table


def print_variants(title: str, means: Mapping[str, list[dict]], n_seeds: int) -> None:
    """Print ``variant_table``."""
    header, *rows = variant_table(means, n_seeds)
    table = Table(title=f'{title}: {_metric_names(means)} by labelled images')
    for i, name in enumerate(header):
        table.add_column(name, justify='right' if i else 'left')
    for cells in rows:
        table.add_row(*cells)
    Console(width=max(100, Console().width)).print(table)


def write_variants(
    folder: Path, title: str, means: Mapping[str, list[dict]], seeds: Sequence[int]
) -> None:
    """Write ``table.md``, ``table.csv`` and ``curves.png``, each atomically.

    Args:
        folder: Where to.
        title: Of the table.
        means: Of ``mean_rows``; at least one variant has rows.
        seeds: That a variant is to be run with.
    """
    header, *rows = variant_table(means, len(seeds))
    over = 'seeds' if len(seeds) > 1 else 'seed'
    lines = [
        f'# {title}',
        '',
        f'{_metric_names(means)} by labelled images: mean ± sample deviation over '
        f'{over} {", ".join(map(str, seeds))}.',
        '',
        _markdown(header),
        _markdown([':--', *['--:'] * (len(header) - 1)]),
        *map(_markdown, rows),
    ]
    write_text(folder / 'table.md', '\n'.join(lines) + '\n')
    write_text(folder / 'table.csv', _csv(means))
    draw_curves(folder / 'curves.png', {k: rows for k, rows in means.items() if rows})


def _csv(means: Mapping[str, list[dict]]) -> str:
    """The table as numbers: per count the mean, its deviation and the seeds."""
    counts = _labelled_counts(means)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    names = (f'{count}{part}' for count in counts for part in ('', ' std', ' seeds'))
    writer.writerow(['labelled', *names])
    for name, rows in means.items():
        cells = [name]
        for count in counts:
            row = _row_at(rows, count)
            cells += (
                [row[metric_name([row])], row['std'], row['seeds']] if row else [''] * 3
            )
        writer.writerow(cells)
    return text.getvalue()


def _markdown(cells: Sequence[str]) -> str:
    return f'| {" | ".join(cells)} |'


def _labelled_counts(means: Mapping[str, list[dict]]) -> list[int]:
    return sorted({row['n_labelled'] for rows in means.values() for row in rows})


def _row_at(rows: Sequence[dict], count: int) -> dict | None:
    return next((row for row in rows if row['n_labelled'] == count), None)


def _mean(row: Mapping) -> str:
    value = f'{row[metric_name([row])]:.4f}'
    return f'{value} ± {row["std"]:.4f}' if row['seeds'] > 1 else value


def _metric_names(means: Mapping[str, list[dict]]) -> str:
    # Variants of different tasks share a table only by mistake: name both metrics.
    return ' / '.join(
        dict.fromkeys(metric_name(rows) for rows in means.values() if rows)
    )
