"""Put trials side by side: one table, one picture of their learning curves."""

import argparse
import collections
import json
import statistics
import sys
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


def read_trials(folders: list[str]) -> dict[tuple[str, int], list[dict]]:
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


def mean_rows(trials: dict[tuple[str, int], list[dict]]) -> dict[str, list[dict]]:
    """Mean and deviation over the seeds of every name.

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
        for rows in zip(*group, strict=False):
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


def print_comparison(means: dict[str, list[dict]]) -> None:
    """One row per number of labelled images, one column per method."""
    table = Table(title=f'{metric_name(next(iter(means.values())))} by labelled images')
    table.add_column('labelled', justify='right')
    for name in means:
        table.add_column(name, justify='right')
    counts = sorted({row['n_labelled'] for rows in means.values() for row in rows})
    for count in counts:
        cells = [str(count)]
        for rows in means.values():
            found = [row for row in rows if row['n_labelled'] == count]
            cells.append(_cell(found[0]) if found else '')
        table.add_row(*cells)
    Console(width=max(100, Console().width)).print(table)


def _cell(row: dict) -> str:
    value = f'{row[metric_name([row])]:.4f}'
    if row['seeds'] > 1:
        value += f' ± {row["std"]:.4f}'
    return value + labels_in_words(row)


def main() -> int:
    """Compare trials; 1 where the user has to mend something."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('work_dirs', nargs='+', help='work dirs of trials')
    parser.add_argument('--out', default='work_dirs/compare.png', help='picture')
    args = parser.parse_args()
    try:
        means = mean_rows(read_trials(args.work_dirs))
    except InputError as error:
        print(f'ERROR: {error}', file=sys.stderr)
        return 1
    print_comparison(means)
    draw_curves(Path(args.out), means)
    print(f'Learning curves: {args.out}')
    return 0


if __name__ == '__main__':
    sys.exit(main())
