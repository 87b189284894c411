"""The store: arrays by name whose row i belongs to ``image_ids[i]``."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tjls_mm.errors import InputError, TrainingDiverged
from tjls_mm.files import file_hash
from tjls_mm.image_ids import split_lines
from tjls_mm.outputs.vocabulary import BOX_FIELDS, BOX_NAMES
from tjls_mm.randomness import tie_break

INDEX_FILE = 'index.json'
IDS_FILE = 'image_ids.txt'
BOX_COUNT = 'count'
"""Boxes per image, (N,); stored in place of offsets, so that shards can be joined."""

_BLOCK = 1 << 24
"""Bytes that are read at once."""


def form(array: np.ndarray) -> list:
    """Type and shape of an array, for JSON."""
    return [str(array.dtype), list(array.shape)]


def blocks(array: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Parts of an array that may not fit in memory, each with its first row."""
    step = max(1, _BLOCK // max(1, array[:1].nbytes))
    for start in range(0, len(array), step):
        yield start, array[start : start + step]


class ImageBoxes(NamedTuple):
    """The m boxes of one image, highest score first.

    Fields are those of ``BOX_FIELDS`` with m rows, and ``feature``, the image's
    ``box_feature``, (m, F), or None if it was not gathered.
    """

    xyxy: np.ndarray
    score: np.ndarray
    label: np.ndarray
    probability: np.ndarray
    feature: np.ndarray | None = None
    prior: np.ndarray | None = None


@dataclass(frozen=True)
class Boxes:
    """Boxes of N images, M altogether, as flat arrays; ``boxes[i]`` are of image i.

    Attributes:
        offsets: Image i has the rows ``offsets[i]`` to ``offsets[i + 1]``, (N + 1,).
        xyxy, score, label, probability, feature, prior: As in ``ImageBoxes``, with M
            rows; boxes without ``prior`` come from one each.

    >>> two = np.zeros((2, 4), np.float32)
    >>> boxes = Boxes(np.array([0, 2, 2]), two, np.array([0.9, 0.5]), None, None)
    >>> boxes.reduce(boxes.score, 'sum')
    array([1.4, 0. ])
    """

    offsets: np.ndarray
    xyxy: np.ndarray
    score: np.ndarray
    label: np.ndarray
    probability: np.ndarray
    feature: np.ndarray | None = None
    prior: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> ImageBoxes:
        row = range(len(self))[row]
        part = slice(self.offsets[row], self.offsets[row + 1])
        fields = (getattr(self, name) for name in ImageBoxes._fields)
        return ImageBoxes(*(None if f is None else f[part] for f in fields))

    @property
    def count(self) -> np.ndarray:
        """Boxes per image, (N,)."""
        return np.diff(self.offsets)

    def one_per_prior(self) -> 'Boxes':
        """The box of highest score of every prior of an image.

        What is counted or averaged over ``probability`` then counts every row once.
        """
        if self.prior is None:
            return self
        image = np.repeat(np.arange(len(self)), self.count)
        width = int(self.prior.max(initial=0)) + 1
        # Highest score first within an image: the first row of a prior is the best.
        _, rows = np.unique(image * width + self.prior, return_index=True)
        rows.sort()
        kept = np.bincount(image[rows], minlength=len(self))
        fields = (getattr(self, name) for name in ImageBoxes._fields)
        return Boxes(
            np.append(0, np.cumsum(kept)),
            *(None if field is None else field[rows] for field in fields),
        )

    def reduce(self, values, how: str = 'mean', empty: float = 0.0) -> np.ndarray:
        """Numbers of boxes to numbers of images.

        Args:
            values: (M,) or (M, D), one row per box, else ValueError.
            how: 'sum', 'mean' or 'max'.
            empty: Of an image without boxes.

        Returns:
            (N,) or (N, D); float32 of values of half or single precision, else float64.
        """
        if len(values) != self.offsets[-1]:
            raise ValueError(f'{len(values)} rows for {self.offsets[-1]} boxes')
        if how not in ('sum', 'mean', 'max'):
            raise ValueError(f"how={how!r}: expected 'sum', 'mean' or 'max'")
        ufunc = np.maximum if how == 'max' else np.add
        dtype = np.result_type(values.dtype, np.float32)
        reduced = np.full((len(self), *values.shape[1:]), empty, dtype)
        filled = np.flatnonzero(self.count)
        # reduceat takes an empty segment for one of one row; without those, a segment
        # ends where the next begins. By blocks: it copies what it converts.
        starts = [start for start, _ in blocks(values)]
        edges = np.searchsorted(self.offsets[filled], starts[1:])
        for rows in filter(len, np.split(filled, edges)):
            start, stop = self.offsets[rows[0]], self.offsets[rows[-1] + 1]
            block = values[start:stop].astype(dtype, copy=False)
            reduced[rows] = ufunc.reduceat(block, self.offsets[rows] - start, axis=0)
        if how == 'mean':
            counts = self.count[filled].astype(dtype)
            reduced[filled] = (reduced[filled].T / counts).T
        return reduced


class Outputs(Mapping):
    """A mapping from a name to an array, whose row i is of image i, or to ``Boxes``.

    Names are those of ``VOCABULARY`` and of the learner's branches. Read-only. Ids or
    rows other than these raise a ValueError.

    Args:
        image_ids: N ids, sorted, each once; there may be none.
        arrays: Name to an array of N rows (``box_feature``: one per box).
    """

    def __init__(self, image_ids: Sequence[str], arrays: Mapping) -> None:
        self.image_ids = ids = list(image_ids)
        self._arrays = dict(arrays)
        if any(a >= b for a, b in pairwise(ids)):
            raise ValueError('image_ids must be sorted, each once')
        for name, array in arrays.items():
            rows = len(arrays['boxes'].score) if name == 'box_feature' else len(ids)
            if len(array) != rows:
                raise ValueError(f'{name}: {len(array)} rows, expected {rows}')

    @classmethod
    def from_arrays(cls, image_ids: Sequence[str], arrays: Mapping) -> 'Outputs':
        """Outputs in memory; see the class."""
        return cls(image_ids, arrays)

    @classmethod
    def open(cls, folder: str | Path, list_file: str | Path | None = None) -> 'Outputs':
        """Outputs of a folder that ``gather_outputs`` wrote, memory-mapped.

        Raises:
            InputError: If a file is missing or damaged, or not of ``list_file``.
        """
        folder = Path(folder)
        with _readable(folder / INDEX_FILE) as path:
            index = json.loads(path.read_text(encoding='utf-8'))
            files, names = index['files'], index['names']
            list_hash, ids_hash = index['list_sha256'], index['ids_sha256']
        if list_file is not None and file_hash(list_file) != list_hash:
            raise _spoiled(folder, f'are of other images than {list_file}')
        with _readable(folder / IDS_FILE) as path:
            if file_hash(path) != ids_hash:
                raise ValueError('its content is not what was written')
            ids = split_lines(path.read_text(encoding='utf-8'))
        arrays = {}
        for name, expected in files.items():
            with _readable(folder / f'{name}.npy') as path:
                arrays[name] = np.load(path, mmap_mode='r')
                if (found := form(arrays[name])) != expected:
                    raise ValueError(f'{found}, expected {expected}')
        with _readable(folder / INDEX_FILE):
            for name in filter(names.__contains__, BOX_NAMES):
                counts = arrays[f'{name}.{BOX_COUNT}']
                offsets = np.append(0, np.cumsum(counts, dtype=np.int64))
                fields = {field: arrays[f'{name}.{field}'] for field in BOX_FIELDS}
                if any(len(field) != offsets[-1] for field in fields.values()):
                    raise ValueError(f'{offsets[-1]} boxes by count, others by fields')
                feature = arrays.get('box_feature') if name == 'boxes' else None
                arrays[name] = Boxes(offsets, **fields, feature=feature)
            return cls(ids, {name: arrays[name] for name in names})

    def __getitem__(self, name: str):
        if name not in self._arrays:
            advice = 'name it in the needs of the strategy'
            found = sorted(self._arrays)
            raise KeyError(f'{name!r} was not gathered: {advice}. Found {found}.')
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def smallest(self, key: np.ndarray, budget: int, seed: int) -> np.ndarray:
        """Rows (budget,) of the images of smallest key, smallest first.

        The key is (N,) and finite, the budget 1 to N, else ValueError; ``seed`` orders
        equals, by a hash of their image_id.
        """
        key, n_images = np.asarray(key), len(self.image_ids)
        if key.shape != (n_images,):
            raise ValueError(f'key of shape {key.shape}, expected ({n_images},)')
        if not 1 <= budget <= n_images:
            raise ValueError(f'budget must be 1 to {n_images} (images), got {budget}')
        bad = np.flatnonzero(~np.isfinite(key))
        if len(bad):
            image_id, found = self.image_ids[bad[0]], key[bad[0]]
            raise ValueError(f'the key of {image_id!r} is {found}, expected a number')
        rows = np.flatnonzero(key <= np.partition(key, budget - 1)[budget - 1])
        _, place, count = np.unique(key[rows], return_inverse=True, return_counts=True)
        tied = count[place] > 1
        # Hashes of a million ids take seconds, and hardly any decides anything.
        hashes = np.zeros(len(rows), np.int64)
        hashes[tied] = [tie_break(self.image_ids[row], seed) for row in rows[tied]]
        return rows[np.lexsort((rows, hashes, place))][:budget]


@contextmanager
def _readable(path: Path) -> Iterator[Path]:
    """Turn whatever a spoiled file raises into one error that names it."""
    try:
        yield path
    except FileNotFoundError:
        raise _spoiled(path.parent, f'lack {path.name}') from None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError) as e:
        raise _spoiled(path.parent, f'have a damaged {path.name} ({e})') from e


def _spoiled(folder: Path, what: str) -> InputError:
    return InputError(
        f'The pool outputs in {folder} {what}. Remove that folder, and the same '
        'command gathers them again.'
    )


def check_finite(outputs: Outputs, where: str) -> None:
    """Raise TrainingDiverged if a value is not finite.

    ``where`` names the images, e.g. 'pool images of stage_00'.
    """
    arrays, offsets = dict(outputs), {}
    for name in filter(outputs.__contains__, BOX_NAMES):
        boxes = arrays.pop(name)
        fields = {f'{name}.{field}': getattr(boxes, field) for field in BOX_FIELDS}
        arrays |= {key: field for key, field in fields.items() if field is not None}
        offsets |= dict.fromkeys(fields, boxes.offsets)
    if 'box_feature' in arrays:
        offsets['box_feature'] = outputs['boxes'].offsets
    for name, array in arrays.items():
        rows = np.zeros(0, np.int64)
        for start, block in blocks(array):
            bad = ~np.isfinite(block).reshape(len(block), -1).all(1)
            rows = np.append(rows, np.flatnonzero(bad) + start)
        if not len(rows):
            continue
        if name in offsets:
            rows = np.unique(np.searchsorted(offsets[name], rows, 'right') - 1)
        ids = ', '.join(outputs.image_ids[row] for row in rows[:3])
        raise TrainingDiverged(
            f'{name!r} of {len(rows)} of {len(outputs.image_ids)} {where} is not '
            f'finite ({ids}{", …" if len(rows) > 3 else ""}): nothing was selected. '
            'The weights of this stage cannot be used: begin again in another '
            '--work-dir, with a lower optim_wrapper.optimizer.lr.'
        )
