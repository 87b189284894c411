"""What is said of picks: why they were chosen, what they show, what is like them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from tjls_mm.outputs import Outputs
from tjls_mm.query.features import on_picks
from tjls_mm.query.strategy import Selection
from tjls_mm.report.classes import Expectation, by_name, expect_classes
from tjls_mm.report.control import describe_groups
from tjls_mm.report.gallery import CAPTION, Mark
from tjls_mm.report.nearest import Nearness, hash_duplicates, measure_nearness

SHOWN_SCORE, SHOWN_BOXES = 0.3, 8
REASONS = ('score', 'uncertainty', 'p_labelled')
"""Columns of strategies that say why, the first that there is."""


def predicted_marks(
    pool: Outputs,
    classes: Sequence[str],
    image_size: Callable[[str], tuple[int, int]],
) -> Callable[[str], list[Mark]]:
    """Function from image_id to the best boxes of an image; none without boxes.

    Args:
        pool: Outputs of the pool.
        classes: Names, in order.
        image_size: (width, height) in pixels of an image_id.
    """
    if 'boxes' not in pool:
        return lambda image_id: []
    boxes = pool['boxes']
    row_of = {image_id: row for row, image_id in enumerate(pool.image_ids)}

    def marks(image_id: str) -> list[Mark]:
        own, (width, height) = boxes[row_of[image_id]], image_size(image_id)
        rows = np.arange(len(own.score))
        if own.prior is not None:  # the best of each; highest scores come first
            rows = np.sort(np.unique(own.prior, return_index=True)[1])
        sides = np.asarray(own.xyxy)[rows] / (width, height, width, height)
        best = (
            np.asarray(own.label)[rows].tolist(),
            np.asarray(own.score)[rows].tolist(),
        )
        numbers = zip(sides, *best, strict=True)
        found = [(tuple(s), k, classes[k]) for s, k, p in numbers if p >= SHOWN_SCORE]
        return found[:SHOWN_BOXES]

    return marks


def reasons_of(
    image_ids: Sequence[str],
    rows: Sequence[int],
    columns: Mapping[str, np.ndarray],
    classes: Sequence[str],
) -> dict[str, str]:
    """A few words on why each image was chosen, of a strategy's columns.

    Args:
        image_ids: Of the pool.
        rows: Picks.
        columns: Name to (N,); ``class`` is the number of a class.
        classes: Names, in order.
    """
    name = next((name for name in REASONS if name in columns), None)
    found = {}
    for row in rows:
        words = []
        if columns.get('control') is not None and columns['control'][row] == 1:
            words.append('control')
        kind = columns['class'][row] if 'class' in columns else np.nan
        if np.isfinite(kind) and 0 <= kind < len(classes):
            words.append(classes[int(kind)])
        if name and np.isfinite(columns[name][row]):
            words.append(f'{name} {columns[name][row]:.3g}')
        if words:
            found[image_ids[row]] = ', '.join(words)
    return found


@dataclass(frozen=True)
class Explanation:
    """What is known of P picks before their labels come.

    Attributes:
        columns: Name to (N,) numbers of pool images, for ``selection.csv``.
        texts: Name to P texts, for the same.
        record: For ``picks`` of ``metrics.json``.
        captions: image_id to lines below its picture.
    """

    columns: Mapping[str, np.ndarray] = field(default_factory=dict)
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)
    record: Mapping = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=dict)


def explain_picks(
    pool: Outputs,
    labelled: Outputs,
    selection: Selection,
    classes: Sequence[str],
    thumbnails: Sequence[np.ndarray],
    seed: int,
) -> Explanation:
    """Put together what outputs and thumbnails say of picks.

    Args:
        pool: Outputs of N images; labelled: of M.
        selection: Of ``check_selection``.
        classes: Names, in order.
        thumbnails: Of the first picks, see ``report.nearest.thumbnail``; there may be
            none.
        seed: Of the sample that says what is far.

    Columns that a strategy has itself are left to it. ``nearest_distance`` and
    ``nearest_labelled`` are those of picks only, for time and memory; without features
    of both pool and labelled images they are not there.
    """
    rows, count = selection.rows, len(pool.image_ids)
    nearness = measure_nearness(pool, labelled, rows, seed)
    expectation = expect_classes(pool, rows, len(classes))
    by_hash = hash_duplicates(thumbnails)
    columns, texts = {}, {}
    if expectation is not None:
        if expectation.boxes is not None:
            columns['expected_boxes'] = expectation.boxes
        texts['predicted_class'] = _likeliest(expectation.picks, classes)
    if nearness is not None:
        columns['nearest_distance'] = on_picks(nearness.distance, rows, count)
        ids = labelled.image_ids
        texts['nearest_labelled'] = [
            ids[row] if row >= 0 else '' for row in nearness.labelled
        ]
    own = selection.columns
    columns = {name: column for name, column in columns.items() if name not in own}
    texts = {name: column for name, column in texts.items() if name not in own}
    duplicates = by_hash.copy()
    if nearness is not None:
        duplicates = nearness.duplicates.copy()
        duplicates[: len(by_hash)] |= by_hash
    record = _record(expectation, nearness, by_hash, duplicates, classes, len(rows))
    if selection.note:
        record['note'] = selection.note
    if 'control' in own:
        values = _group_columns(selection, expectation, nearness, duplicates)
        groups = describe_groups(np.asarray(own['control'])[rows], values)
        record['control'] = groups
    captions = reasons_of(pool.image_ids, rows, own, classes)
    captions = _captions(pool, labelled, rows, captions, nearness, duplicates)
    return Explanation(columns, texts, record, captions)


def _likeliest(expected: np.ndarray, classes: Sequence[str]) -> list[str]:
    """Name of the class that is expected most in each of (P, K), '' of none."""
    best = expected.argmax(1) if len(expected) else []
    return [
        classes[k] if row[k] > 0 else '' for row, k in zip(expected, best, strict=True)
    ]


def _record(
    expectation: Expectation | None,
    nearness: Nearness | None,
    by_hash: np.ndarray,
    duplicates: np.ndarray,
    classes: Sequence[str],
    count: int,
) -> dict:
    record = {}
    if len(duplicates):
        found = record['near_duplicates'] = {'share': _mean(duplicates)}
        if len(by_hash):
            found |= {'by_hash': _mean(by_hash), 'hashed': len(by_hash)}
        if nearness is not None:
            found['by_feature'] = _mean(nearness.duplicates)
            found |= {'pool_by_feature': round(nearness.usual, 6)}
            found |= {'feature': nearness.feature, 'distance': nearness.near}
    if nearness is not None and np.isfinite(nearness.distance).all():
        record['nearest_distance'] = _mean(nearness.distance)
    if expectation is not None:
        record['expected'] = by_name(expectation.picks.sum(0), classes)
        record['pool_expectation'] = by_name(expectation.mean * count, classes)
    return record


def _mean(values: np.ndarray) -> float:
    return round(float(np.mean(values)), 6)


def _group_columns(
    selection: Selection,
    expectation: Expectation | None,
    nearness: Nearness | None,
    duplicates: np.ndarray,
) -> dict[str, np.ndarray]:
    """Numbers of picks, (P,), that chosen and control images are compared by."""
    rows, columns = selection.rows, selection.columns
    found = {}
    if score := next((name for name in REASONS if name in columns), None):
        found['mean_score'] = np.asarray(columns[score])[rows]
    if 'expected_boxes' in columns:
        found['expected_boxes'] = np.asarray(columns['expected_boxes'])[rows]
    elif expectation is not None and expectation.boxes is not None:
        found['expected_boxes'] = expectation.boxes[rows]
    if nearness is not None:
        found['nearest_distance'] = nearness.distance
    known = np.full(len(rows), np.nan)
    known[: len(duplicates)] = duplicates
    found['near_duplicates'] = known
    return found


def _captions(
    pool: Outputs,
    labelled: Outputs,
    rows: np.ndarray,
    reasons: Mapping[str, str],
    nearness: Nearness | None,
    duplicates: np.ndarray,
) -> dict[str, str]:
    found = {}
    for place, row in enumerate(rows.tolist()):
        image_id = pool.image_ids[row]
        lines = [reasons.get(image_id, '')]
        if nearness is not None and nearness.labelled[place] >= 0:
            start = f'{nearness.distance[place]:.3f} to '
            name = labelled.image_ids[nearness.labelled[place]]
            # The end of an id says more than its folder.
            lines.append(start + name[-(CAPTION - len(start)) :])
        if place < len(duplicates) and duplicates[place]:
            lines.append('near-duplicate')
        found[image_id] = '\n'.join(filter(None, lines))
    return {image_id: text for image_id, text in found.items() if text}
