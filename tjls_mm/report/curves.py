"""Learning curves, and what a trial leaves of itself for others to read."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from tjls_mm.files import atomic_path, write_json, write_text
from tjls_mm.report.stage_line import metric_name
from tjls_mm.stage_folder import TrialFolder


def write_report(folder: TrialFolder, summary: Mapping) -> None:
    """Write ``curve.csv``, ``curve.png`` and ``summary.json``.

    The summary has ``name``; ``seed``; ``config_hash`` of what decides about results,
    the seed left out; ``images``, ``initial`` and ``test``, dicts of ``count`` and
    ``sha256`` of the image_ids; ``stages``, at least one ``stage_row``.
    """
    rows = summary['stages']
    write_text(folder.curve_csv, csv_text(rows))
    draw_curves(folder.curve_png, {summary['name']: rows})
    write_json(folder.summary, summary)


def csv_text(rows: Sequence[Mapping]) -> str:
    """Rows of one set of columns as CSV; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def draw_curves(path: Path, trials: Mapping[str, Sequence[Mapping]]) -> None:
    """Draw metric against labelled images, one line per trial, as a PNG file.

    Rows are those of ``stage_row``, or of ``mean_rows`` with ``std`` as bars. A single
    stage is drawn as a horizontal line: the ceiling with all labels.
    """
    # pyplot would need a display and keep the figure alive.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=120)
    axes = figure.add_subplot()
    curves = any(len(rows) > 1 for rows in trials.values())
    for name, rows in trials.items():
        metric = metric_name(rows)
        x = [row['n_labelled'] for row in rows]
        y = [row[metric] for row in rows]
        if len(rows) == 1 and curves:
            label = f'{name} ({x[0]} labelled)'
            axes.axhline(y[0], linestyle='--', color='0.4', label=label)
        else:
            bars = [row.get('std', 0.0) for row in rows]
            bars = bars if any(bars) else None
            axes.errorbar(x, y, bars, marker='o', capsize=2, label=name)
    axes.set_xlabel('labelled images')
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png')
