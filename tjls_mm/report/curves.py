"""Learning curves, and what a trial leaves of itself for others to read."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np

from tjls_mm.files import atomic_path, write_json, write_text
from tjls_mm.report.stage_line import metric_name
from tjls_mm.stage_folder import TrialFolder

FEW_CURVES = 10
"""As many as the usual cycle of colors has and a panel holds the names of."""


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
    """Rows as CSV; None, and what a row has not, is an empty cell."""
    text = io.StringIO()
    columns = dict.fromkeys(key for row in rows for key in row)
    writer = csv.DictWriter(text, list(columns), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def draw_curves(
    path: Path,
    trials: Mapping[str, Sequence[Mapping]],
    ceilings: Collection[str] = (),
) -> None:
    """Draw metric against labelled images, one line per trial, as a PNG file.

    Rows are those of ``stage_row``, or of ``mean_rows``, whose ``low`` and ``high`` are
    drawn as a band, and which, where they have ``n_boxes``, get a second panel with the
    metric against those. ``ceilings`` are names of single stages with all labels, drawn
    as horizontal lines beside curves; any other single stage is a point.
    """
    # pyplot would need a display and keep the figure alive.
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    curves = {n: rows for n, rows in trials.items() if len(rows) > 1}
    with_bands = any('low' in row for rows in trials.values() for row in rows)
    with_boxes = with_bands and any('n_boxes' in rows[0] for rows in curves.values())
    ceilings = {*ceilings} if curves else ()
    panels = ['n_labelled', 'n_boxes'] if with_boxes else ['n_labelled']
    figure = Figure(figsize=(6.4 * len(panels), 4.2), dpi=120)
    all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, count in zip(all_axes, panels, strict=True):
        if len(trials) > FEW_CURVES:
            axes.set_prop_cycle(color=colormaps['tab20'].colors)
        for name, rows in trials.items():
            draw_curve(axes, name, rows, count, is_ceiling=name in ceilings)
        axes.set_xlabel(f'labelled {"boxes" if count == "n_boxes" else "images"}')
        axes.grid(alpha=0.3)
    all_axes[0].set_ylabel(metric_name(next(iter(trials.values()))))
    if len(trials) > FEW_CURVES:
        beside = dict(loc='center left', bbox_to_anchor=(1.01, 0.5))
        all_axes[-1].legend(fontsize=6, ncols=-(-len(trials) // 24), **beside)
    else:
        all_axes[0].legend(fontsize=8)
    _save(figure, path)


def draw_curve(axes, name: str, rows, count: str, is_ceiling: bool) -> None:
    """Draw one of the lines of ``draw_curves`` against ``count``, a column of rows."""
    y = [row[metric_name(rows)] for row in rows]
    if len(rows) == 1 and is_ceiling:
        label = f'{name} ({rows[0]["n_labelled"]} labelled)'
        axes.axhline(y[0], linestyle='--', color='0.4', label=label)
    elif all(count in row for row in rows):
        x = [row[count] for row in rows]
        (line,) = axes.plot(x, y, marker='o', markersize=4, label=name)
        if all(row.get('low') is not None for row in rows):
            low, high = ([row[end] for row in rows] for end in ('low', 'high'))
            axes.fill_between(x, low, high, color=line.get_color(), alpha=0.15)


def draw_win_rates(path: Path, names: Sequence[str], shares: np.ndarray) -> None:
    """Draw ``win_rates`` of M names as a matrix of M x M cells, as a PNG file."""
    from matplotlib.figure import Figure

    side = 2.5 + 0.6 * len(names)
    figure = Figure(figsize=(side + 1, side), dpi=120)
    axes = figure.add_subplot()
    image = axes.imshow(shares, cmap='RdBu', vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        if np.isfinite(share):
            color = 'white' if abs(share - 0.5) > 0.3 else 'black'
            text = dict(ha='center', va='center', fontsize=8, color=color)
            axes.text(column, row, f'{share:.2f}', **text)
    places = range(len(names))
    axes.set_xticks(places, names, rotation=45, ha='right', rotation_mode='anchor')
    axes.set_yticks(places, names)
    axes.set_title('how often the row beats the column', fontsize=10)
    figure.colorbar(image, fraction=0.045)
    _save(figure, path)


def _save(figure, path: Path) -> None:
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png')
