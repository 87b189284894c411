"""Classes of picks: what a learner expects in them and in the pool, and what came.

``N`` pool images, ``P`` picks, ``K`` classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tjls_mm.files import atomic_path
from tjls_mm.outputs import Outputs
from tjls_mm.outputs.outputs import blocks
from tjls_mm.query.box_scores import (
    detections,
    expected_boxes,
    rows_of,
)

BARS = 30
"""Classes at most in a picture, those that most is known of."""

GAINED = 0.05
"""Share of classes from which on a gain is worth a word."""

COLOURS = {
    "the pool's expectation": '0.7',
    'picks, expected': '#4363d8',
    'picks, labelled': '#f58231',
}


@dataclass(frozen=True)
class Expectation:
    """Objects of each class, as the scores of a learner say; images of a classifier.

    Scores are taken as they are: a learner that is too sure expects too much.

    Attributes:
        picks: Of each pick, (P, K).
        mean: Of a pool image, (K,).
        boxes: Of every pool image, (N,); None of a classifier.
    """

    picks: np.ndarray
    mean: np.ndarray
    boxes: np.ndarray | None = None


def expect_classes(pool: Outputs, rows: np.ndarray, classes: int) -> Expectation | None:
    """Sums of box scores or class probabilities; None where neither was gathered.

    Args:
        pool: Outputs of N images; of ``boxes`` count those of ``detections``.
        rows: Of the picks, (P,).
        classes: K.
    """
    if 'boxes' in pool:
        # Without what is not asked: a pool's class vectors are large.
        boxes = replace(pool['boxes'], xyxy=None, probability=None)
        boxes = detections(boxes)
        total = np.bincount(boxes.label, boxes.score, classes)
        own = rows_of(boxes, rows)
        image = np.repeat(np.arange(len(rows)), boxes.count[rows])
        cell = image * classes + boxes.label[own]
        picks = np.bincount(cell, boxes.score[own], len(rows) * classes)
        return Expectation(
            picks.reshape(len(rows), classes),
            total / max(1, len(boxes)),
            expected_boxes(boxes),
        )
    if 'probability' in pool:
        probability = pool['probability']
        total = np.zeros(classes)
        for _, block in blocks(probability):
            total += block.sum(0, dtype=np.float64)
        picks = np.asarray(probability[rows], np.float64)
        return Expectation(picks, total / max(1, len(probability)))
    return None


def by_name(values: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """Numbers of classes for a record."""
    pairs = zip(classes, np.asarray(values, float).tolist(), strict=True)
    return {name: round(value, 4) for name, value in pairs}


def gained_class(
    picks: Mapping[str, float], before: Mapping[str, float]
) -> tuple[str, float, float] | None:
    """The class whose share grew most.

    Args:
        picks: Of classes, of the picks.
        before: The same, of what they are compared with.

    Returns:
        (class, its share of the picks, its share before); None where nothing is known.
        The first of equals.
    """
    total, total_before = sum(picks.values()), sum(before.values())
    if not total > 0 or not total_before > 0:
        return None
    shares = {
        name: (value / total, before.get(name, 0) / total_before)
        for name, value in picks.items()
    }
    name = max(shares, key=lambda name: shares[name][0] - shares[name][1])
    return (name, *shares[name])


def classes_in_words(record: Mapping) -> str:
    """A few words on the class that gained most, of a stage's record; or nothing.

    Both sides are counted in one way: expected in the picks and in the pool or, where
    the learner said nothing, labelled in the picks and before.
    """
    picks = record.get('picks') or {}
    pairs = (
        (picks.get('expected'), picks.get('pool_expectation'), 'pool'),
        (picks.get('images'), record.get('labelled_images'), 'labelled'),
    )
    for now, before, what in pairs:
        if gained := gained_class(now or {}, before or {}):
            name, share, past = gained
            if share - past < GAINED:
                return ''
            return f'picks gain {name!r}: {share:.0%}, {what} {past:.0%}'
    return ''


def draw_classes(path: Path, picks: Mapping, unit: str) -> bool:
    """Draw what picks hold of each class as a PNG file; False if nothing is known.

    Args:
        path: Of the file.
        picks: ``picks`` of ``metrics.json``: ``expected`` and ``pool_expectation``
            where the learner said something, and counts of ``unit`` once labelled.
        unit: What is counted, 'boxes' or 'images'.
    """
    found = picks.get('pool_expectation'), picks.get('expected'), picks.get(unit)
    pairs = zip(COLOURS, found, strict=True)
    series = {label: numbers for label, numbers in pairs if numbers}
    if not series:
        return False
    # pyplot would need a display and keep the figure alive.
    from matplotlib.figure import Figure

    names = list(next(iter(series.values())))
    size = {n: sum(part.get(n, 0) for part in series.values()) for n in names}
    shown = sorted(sorted(names, key=lambda n: -size[n])[:BARS], key=names.index)
    figure = Figure(figsize=(max(4.8, 1.5 + 0.35 * len(shown)), 3.2), dpi=100)
    axes = figure.add_subplot()
    places, width = np.arange(len(shown)), 0.8 / len(series)
    for i, (label, numbers) in enumerate(series.items()):
        left = places + (i - len(series) / 2) * width
        heights = [numbers.get(n, 0) for n in shown]
        axes.bar(left, heights, width, align='edge', label=label, color=COLOURS[label])
    axes.set_xticks(
        places, [n[:16].replace('$', r'\$') for n in shown], rotation=60, ha='right'
    )
    rest = f' ({len(shown)} of {len(names)} classes)' if len(names) > BARS else ''
    axes.set_ylabel(unit + rest)
    above = dict(loc='lower center', bbox_to_anchor=(0.5, 1), ncols=3)
    axes.legend(fontsize='x-small', frameon=False, **above)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format='png')
    return True
