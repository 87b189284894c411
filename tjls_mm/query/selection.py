"""What was selected: checking it and writing it."""

import csv
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path
from tjls_mm.outputs.outputs import Outputs
from tjls_mm.query.strategy import Selection

_LINES = 100_000
"""Lines that are put together at once."""


def check_selection(answer, n_images: int, budget: int, strategy: str) -> Selection:
    """Refuse what cannot be a selection.

    Args:
        answer: What a strategy returned.
        n_images: In the pool.
        budget: Rows that were asked for.
        strategy: Its name, for the message.

    Returns:
        The answer, its rows as int64.

    Raises:
        InputError: If it is not ``budget`` different rows of the pool, or a column is
            not one number per image.
    """
    returned = f'The query strategy {strategy!r} returned'
    selection = answer if isinstance(answer, Selection) else Selection(answer)
    try:
        rows = np.asarray(selection.rows)
        fits = rows.ndim == 1 and (rows.dtype.kind in 'iu' or not rows.size)
    except ValueError:
        rows, fits = None, False
    if not fits:
        raise InputError(
            f'{returned} {str(selection.rows)[:80]!r}: expected rows of the pool, an '
            'array of integers of one axis.'
        )
    outside = rows[(rows < 0) | (rows >= n_images)]
    unique = len(np.unique(rows))
    if len(rows) != budget or len(outside) or unique != len(rows):
        among = f', among them {outside[0]}' if len(outside) else ''
        raise InputError(
            f'{returned} {len(rows)} rows, {unique} different ones{among}: expected '
            f'{budget} different rows of the pool, 0 to {n_images - 1}.'
        )
    columns = {name: np.asarray(c) for name, c in selection.columns.items()}
    for name, column in columns.items():
        if column.shape != (n_images,) or column.dtype.kind not in 'biuf':
            raise InputError(
                f'{returned} the column {name!r} of shape {column.shape} and type '
                f'{column.dtype}: expected a number for each of {n_images} pool images.'
            )
    return replace(selection, rows=rows.astype(np.int64), columns=columns)


def write_selection(
    path: str | Path,
    pool: Outputs,
    rows: Sequence[int],
    columns: Mapping[str, np.ndarray],
    texts: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write ``image_id,rank`` and scores of every pool image atomically.

    Picks come first in their order, ranks from 1; then the others by id.

    Args:
        path: Of the file.
        pool: Its outputs of one number per image become columns too.
        rows: Picks, first choice first; may be empty.
        columns: Name to (N,). Floats are written with nine digits, which keep every
            bit of float32; NaN is left empty.
        texts: Name to a text of each pick, in their order; the last columns, empty for
            images that were not picked.
    """
    ids, texts = pool.image_ids, texts or {}
    singles = {name: pool[name] for name in pool if getattr(pool[name], 'ndim', 0) == 1}
    columns = {**singles, **columns}
    picked = np.asarray(rows, dtype=np.int64)
    rest = np.ones(len(ids), bool)
    rest[picked] = False
    order = np.concatenate([picked, np.flatnonzero(rest)])
    with (
        atomic_path(path) as part,
        open(part, 'w', encoding='utf-8', newline='') as file,
    ):
        header = ['image_id', 'rank', *columns, *texts]
        csv.writer(file, lineterminator='\n').writerow(header)
        for start in range(0, len(order), _LINES):
            block = order[start : start + _LINES]
            places = range(start + 1, start + 1 + len(block))
            ranks = [str(rank) if rank <= len(picked) else '' for rank in places]
            names = [_quoted(ids[row]) for row in block.tolist()]
            fields = [_digits(column[block]) for column in columns.values()]
            fields += [_texts(column, start, len(block)) for column in texts.values()]
            lines = map(','.join, zip(names, ranks, *fields, strict=True))
            file.write('\n'.join(lines) + '\n')


def read_picked(path: str | Path, name: str) -> dict[str, str]:
    """A column of the picks in a file of ``write_selection``, by image_id, in order.

    Empty where there is no such file or column.
    """
    try:
        with open(path, encoding='utf-8', newline='') as file:
            reader = csv.DictReader(file)
            if not {'image_id', 'rank', name} <= set(reader.fieldnames or ()):
                return {}
            picks = itertools.takewhile(lambda row: row['rank'], reader)
            return {row['image_id']: row[name] for row in picks}
    except (FileNotFoundError, csv.Error, UnicodeDecodeError):
        return {}


def _texts(values: Sequence[str], start: int, count: int) -> list[str]:
    part = [_quoted(text) for text in values[start : start + count]]
    return part + [''] * (count - len(part))


def _quoted(text: str) -> str:
    if ',' in text or '"' in text or '\r' in text or '\n' in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def _digits(values: np.ndarray) -> list[str]:
    if values.dtype.kind != 'f':
        return [str(int(value)) for value in values.tolist()]
    return ['' if v != v else f'{v:.9g}' for v in values.tolist()]
