"""What a gallery says of picks: the boxes that the learner sees, and the reason."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tjls_mm.outputs import Outputs
from tjls_mm.report.gallery import Mark

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
