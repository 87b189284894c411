"""Pictures, coordinates and summary lines of learners' features."""

import csv
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tjls_mm.active.features import NEIGHBOURS, Panel
from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path, write_text

COLUMNS = ['trial', 'image_id', 'x', 'y', 'class', 'selected']
MAX_COLOURS = 20


def panel_title(panel: Panel) -> str:
    """Labelled images and metric of a panel in words."""
    name, value = panel.stage.metric
    return f'{panel.stage.n_labelled:,} labelled, {name} {value:.4g}'


def panel_counts(panel: Panel) -> str:
    """How many images of how many a panel shows."""
    n_selected = int(panel.is_selected.sum())
    others = len(panel.image_ids) - n_selected
    selected = len(panel.stage.selected)
    return (
        f'shown: {n_selected:,} of {selected:,} selected, '
        f'{others:,} of {len(panel.stage.pool) - selected:,} other pool images'
    )


def panel_line(panel: Panel) -> str:
    """The summary line of a panel."""
    k = min(NEIGHBOURS, panel.n_drawn - 1)
    parts = [
        panel.stage.name,
        panel_title(panel),
        panel_counts(panel),
        f'of the {k} nearest in feature space '
        f'{panel.agreement[: panel.n_drawn].mean():.1%} have the same class',
    ]
    if panel.is_selected.any():
        parts[-1] += (
            f', around selected images {panel.agreement[panel.is_selected].mean():.1%}'
        )
    return ' | '.join(parts)


def write_coordinates(path: Path, panels: Sequence[Panel]) -> None:
    """Write ``trial,image_id,x,y,class,selected``, a row per point.

    Args:
        path: Of the CSV file, replaced atomically.
        panels: In order.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(COLUMNS)
    for panel in panels:
        classes = panel.stage.source.classes
        rows = zip(
            panel.image_ids, panel.points, panel.labels, panel.is_selected, strict=True
        )
        for image_id, (x, y), label, is_selected in rows:
            place = f'{x:.6g}', f'{y:.6g}'
            writer.writerow(
                [panel.stage.name, image_id, *place, classes[label], int(is_selected)]
            )
    write_text(path, text.getvalue())


def choose_classes(n_classes: int, asked: int | None) -> int:
    """How many classes get a colour: the first ones.

    Args:
        n_classes: ``K``.
        asked: By the user, or None: all where they are few enough to tell apart,
            otherwise 10 as in the paper's figure.

    Raises:
        InputError: If there are not that many colours.
    """
    if asked is None:
        return n_classes if n_classes <= MAX_COLOURS else 10
    if not 1 <= asked <= MAX_COLOURS:
        raise InputError(f'--classes must be 1 to {MAX_COLOURS}, got {asked}.')
    return min(asked, n_classes)


def draw_panels(path: Path, panels: Sequence[Panel], n_coloured: int) -> None:
    """Draw the panels beside each other with one legend.

    Args:
        path: Of the PNG file, replaced atomically.
        panels: In order, at least one; of the same classes.
        n_coloured: Classes with a colour, the first ones; others are grey.
    """
    # pyplot would need a display and keep the figure alive.
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    width = 5.0 * columns
    figure = Figure(figsize=(width, 5.2 * rows + 0.5), dpi=150, layout='constrained')
    FigureCanvasAgg(figure)
    classes = panels[0].stage.source.classes
    colours = [*colormaps['tab10' if n_coloured <= 10 else 'tab20'].colors[:n_coloured]]
    names = list(classes[:n_coloured])
    if n_coloured < len(classes):
        colours.append((0.8, 0.8, 0.8))
        names.append(f'{len(classes) - n_coloured} other classes')
    for i, panel in enumerate(panels):
        axes = figure.add_subplot(rows, columns, i + 1)
        _draw_points(axes, panel, colours, n_coloured)
    handles = [
        Line2D([], [], linestyle='', marker='o', color=colour, label=name)
        for name, colour in zip(names, colours, strict=True)
    ]
    cross = dict(linestyle='', marker='x', color='black')
    handles.append(Line2D([], [], **cross, label='selected after this stage'))
    # In inches, for the font size below.
    widest = 0.5 + 0.075 * max(len(handle.get_label()) for handle in handles)
    figure.legend(
        handles=handles,
        loc='outside lower center',
        ncols=max(1, min(len(handles), int(width / widest))),
        fontsize=9,
        frameon=False,
    )
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png')


def _draw_points(axes, panel: Panel, colours: Sequence[tuple], n_coloured: int) -> None:
    # Classes without a colour of their own share the last one, below the rest.
    shown = np.minimum(panel.labels, n_coloured)
    order = np.argsort(shown < n_coloured, kind='stable')
    size = np.where(panel.is_selected, 22, 9)
    axes.scatter(
        *panel.points[order].T,
        s=size[order],
        c=np.array(colours)[shown[order]],
        linewidths=0,
    )
    crosses = panel.points[panel.is_selected].T
    axes.scatter(*crosses, s=13, c='black', marker='x', linewidths=0.7)
    axes.set_title(f'{panel.stage.name}\n{panel_title(panel)}', fontsize=10)
    axes.set_xlabel(panel_counts(panel), fontsize=8)
    axes.set_xticks([])
    axes.set_yticks([])
