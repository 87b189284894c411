"""Tables and pictures of a trial: people look rather than read."""

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps
from rich.console import Console
from rich.table import Table

from tjls_mm.files import atomic_path, write_json, write_text

STEPS = ('train', 'eval', 'score', 'select')
CHANCE_AUC = 0.55
LABEL_COUNTS = ('n_boxes',)
"""What a task labels besides images; shown where a record has it."""


def primary_metric(metrics: Mapping[str, float]) -> tuple[str, float]:
    """Name and value of the metric that curves show: the evaluator's first."""
    return next(iter(metrics.items()))


def stage_row(number: int, record: Mapping) -> dict:
    """One row of table and curve from a stage's ``metrics.json``."""
    name, value = primary_metric(record['metrics'])
    seconds = record.get('seconds', {})
    return {
        'stage': number,
        'n_labelled': record['n_labelled'],
        **{key: record[key] for key in LABEL_COUNTS if key in record},
        name: value,
        **{f'{step}_s': seconds.get(step, 0.0) for step in STEPS},
    }


def stage_warnings(record: Mapping) -> list[str]:
    """What a user should know before trusting the picks of a stage."""
    warnings = []
    auc = (record.get('discriminator') or {}).get('auc')
    if auc is not None and auc < CHANCE_AUC:
        warnings.append(
            f'discriminator AUC {auc:.2f} is near chance: its order says little'
        )
    picks = record.get('picks') or {}
    lean = leaning_class(picks.get('images', {}), record.get('labelled_images', {}))
    if lean:
        name, share, before = lean
        warnings.append(
            f'picks lean to {name!r}: {share:.0%} of what they show, '
            f'{before:.0%} of what is labelled'
        )
    share, chance = picks.get('trained_on_share'), picks.get('trained_on_chance')
    if share is not None and chance and share < chance / 2 and chance < 1:
        warnings.append(
            f'{share:.0%} of the picks were seen in training, {chance:.0%} by chance'
        )
    return warnings


def leaning_class(
    picks: Mapping[str, int], labelled: Mapping[str, int]
) -> tuple[str, float, float] | None:
    """The class that picks hold far more often than the labelled images.

    Args:
        picks: Picked images per class.
        labelled: Labelled images per class.

    Returns:
        (class, share of picks, share of labelled images) of the class that gained
        most, if it at least doubled and gained 15 points, else None. Shares are
        of class occurrences.
    """
    total, total_labelled = sum(picks.values()), sum(labelled.values())
    if not total or not total_labelled:
        return None
    gains = []
    for name, count in picks.items():
        share, before = count / total, labelled.get(name, 0) / total_labelled
        if share >= 2 * before and share - before >= 0.15:
            gains.append((share - before, (name, share, before)))
    return max(gains)[1] if gains else None


def labels_in_words(row: Mapping) -> str:
    """' (523 boxes)' of a record or row, or nothing where an image is a label."""
    counts = [f'{row[k]} {k.removeprefix("n_")}' for k in LABEL_COUNTS if k in row]
    return f' ({", ".join(counts)})' if counts else ''


def stage_line(number: int, n_stages: int, record: Mapping) -> str:
    """The summary line of a stage."""
    name, value = primary_metric(record['metrics'])
    seconds = record.get('seconds', {})
    times = ' '.join(f'{s} {seconds[s]:.1f}s' for s in STEPS if s in seconds)
    parts = [
        f'stage {number + 1}/{n_stages}',
        f'{record["n_labelled"]} labelled{labels_in_words(record)}',
        f'{name} {value:.4f}',
        times,
    ]
    report = record.get('discriminator')
    if report and report['auc'] is not None:
        parts.append(f'discriminator AUC {report["auc"]:.2f}')
    line = ' | '.join(parts)
    return line + ''.join(f' | WARNING: {w}' for w in stage_warnings(record))


def print_table(title: str, rows: Sequence[Mapping]) -> None:
    """Print one table of a trial."""
    if not rows:
        return
    table = Table(title=title)
    for name in rows[0]:
        table.add_column(name, justify='right')
    for row in rows:
        table.add_row(*(_format(name, value) for name, value in row.items()))
    Console(width=max(100, Console().width)).print(table)


def _format(name: str, value) -> str:
    if name.endswith('_s'):
        return f'{value:.1f}'
    return f'{value:.4f}' if isinstance(value, float) else str(value)


def write_report(folder: Path, name: str, seed: int, rows: Sequence[Mapping]) -> None:
    """Write ``summary.json``, ``curve.csv`` and ``curve.png``.

    Args:
        folder: Work dir of the trial.
        name: Of the trial.
        seed: Of the trial.
        rows: Of ``stage_row``, one per complete stage.
    """
    write_json(folder / 'summary.json', {'name': name, 'seed': seed, 'stages': rows})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator='\n')
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / 'curve.csv', text.getvalue())
    draw_curves(folder / 'curve.png', {name: rows})


def metric_name(rows: Sequence[Mapping]) -> str:
    """Name of the metric column of rows of ``stage_row``: the first after counts."""
    counts = ('stage', 'n_labelled', *LABEL_COUNTS)
    return next(name for name in rows[0] if name not in counts)


def draw_curves(path: Path, trials: Mapping[str, Sequence[Mapping]]) -> None:
    """Draw metric against labelled images, one line per trial.

    Args:
        path: Of the PNG file, replaced atomically.
        trials: Name to rows of ``stage_row``. A trial of one stage is drawn as a
            horizontal line: the ceiling with all labels.
    """
    # pyplot would need a display and keep the figure alive.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), dpi=120)
    FigureCanvasAgg(figure)
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
            axes.plot(x, y, marker='o', label=name)
    axes.set_xlabel('labelled images')
    axes.set_ylabel(metric)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png')


def draw_gallery(
    path: Path,
    image_ids: Sequence[str],
    open_image: Callable[[str], Image.Image],
    columns: int = 6,
    rows: int = 4,
) -> None:
    """Draw the first images of a selection beside each other, first choice first.

    Args:
        path: Of the PNG file, replaced atomically.
        image_ids: The selection, in order.
        open_image: Opens the image of an id.
        columns: Images per row.
        rows: Rows at most.
    """
    side, text = 150, 14
    shown = image_ids[: columns * rows]
    size = columns * side, -(-len(shown) // columns) * (side + text)
    sheet = Image.new('RGB', size, 'white')
    draw = ImageDraw.Draw(sheet)
    for i, image_id in enumerate(shown):
        left, top = i % columns * side, i // columns * (side + text)
        image = open_image(image_id).convert('RGB')
        thumbnail = ImageOps.contain(image, (side - 4, side - 4))
        sheet.paste(thumbnail, (left + 2, top + 2))
        draw.text((left + 2, top + side), f'{i + 1}. {image_id}'[-24:], fill='black')
    with atomic_path(path) as temporary:
        sheet.save(temporary, format='PNG')
