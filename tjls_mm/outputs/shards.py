"""Writing the store: every process a shard, process 0 joins them."""

import contextlib
import json
import shutil
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path, file_hash, remove_leftovers, write_json
from tjls_mm.image_ids import write_image_ids
from tjls_mm.outputs.outputs import IDS_FILE, INDEX_FILE, blocks

_HEADER = 256
"""Bytes of a .npy header whose number of rows is filled in at the end."""


class ShardedStore:
    """A folder of outputs in the making, a shard per process.

    Finished shards lie in ``parts/`` and are found there after a kill, if they were
    made of the same. Files are joined one by one and removed from the parts then, so
    that the disk holds hardly more than one copy; ``index.json`` comes last.
    """

    def __init__(self, folder: Path, image_ids: list[str], world_size: int) -> None:
        self.folder, self.image_ids, self.world_size = folder, image_ids, world_size
        self.parts = folder / 'parts'

    def prepare(self, made_of: dict) -> list[int] | None:
        """Make the folder ready; process 0 does it for all.

        Args:
            made_of: What the outputs depend on, for JSON, with ``list_sha256``.

        Returns:
            Shards that are there, or None if all is joined.
        """
        self.made_of = made_of
        if _read(self.folder / INDEX_FILE).get('made_of') == made_of:
            shutil.rmtree(self.parts, ignore_errors=True)
            return None
        plan = {'made_of': made_of, 'shards': self.world_size}
        if _read(self.parts / 'plan.json') != plan:
            # The index first: what is half removed must not be taken for whole.
            (self.folder / INDEX_FILE).unlink(missing_ok=True)
            if self.folder.exists():
                shutil.rmtree(self.folder)
            write_json(self.parts / 'plan.json', plan)
        ranks = range(self.world_size)
        for folder in (self.folder, *map(self._part, ranks)):
            remove_leftovers(folder)
        return [rank for rank in ranks if self._is_done(rank)]

    def _part(self, rank: int) -> Path:
        return self.parts / f'{rank:05d}_of_{self.world_size:05d}'

    def _mark(self, rank: int) -> Path:
        return self._part(rank) / 'done.json'

    def _is_done(self, rank: int) -> bool:
        files = _read(self._mark(rank)).get('files')
        return files is not None and all(
            (self._part(rank) / f'{name}.npy').exists()
            or (self.folder / f'{name}.npy').exists()
            for name in files
        )

    def write_shard(
        self, rank: int, batches: Iterable[Mapping[str, np.ndarray]]
    ) -> None:
        """Write one shard, batch after batch; nothing of it is kept in memory.

        A batch maps file names without suffix to rows.
        """
        self._mark(rank).unlink(missing_ok=True)
        writers = {}
        with contextlib.ExitStack() as stack:
            for batch in batches:
                for name, rows in batch.items():
                    if name not in writers:
                        path = self._part(rank) / f'{name}.npy'
                        writer = array_writer(path, rows.dtype, rows.shape[1:])
                        writers[name] = stack.enter_context(writer)
                    writers[name].append(rows)
        forms = {n: [str(w.dtype), [w.rows, *w.row_shape]] for n, w in writers.items()}
        write_json(self._mark(rank), {'files': forms})

    def join(self, names: Iterable[str]) -> None:
        """Join all shards to outputs of these names, process 0.

        Raises:
            InputError: If a shard is not to be seen from here.
        """
        files, parts = {}, {}
        for rank in range(self.world_size):
            if not self._is_done(rank):
                raise InputError(
                    f'Process 0 does not see {self._mark(rank)} of process {rank}: '
                    'expected a work dir on a file system that all processes share.'
                )
            for name, (dtype, shape) in _read(self._mark(rank))['files'].items():
                _, whole = files.setdefault(name, [dtype, [0, *shape[1:]]])
                whole[0] += shape[0]
                parts.setdefault(name, []).append(self._part(rank) / f'{name}.npy')
        for name, form in files.items():
            self._join_file(name, parts[name], form)
        write_image_ids(self.folder / IDS_FILE, self.image_ids)
        index = {
            'images': len(self.image_ids),
            'names': list(names),
            'ids_sha256': file_hash(self.folder / IDS_FILE),
            'list_sha256': self.made_of['list_sha256'],
            'files': files,
            'made_of': self.made_of,
        }
        write_json(self.folder / INDEX_FILE, index)
        shutil.rmtree(self.parts)

    def _join_file(self, name: str, parts: list[Path], form: list) -> None:
        target = self.folder / f'{name}.npy'
        if len(parts) == 1:
            if parts[0].exists():  # else a kill came right after
                parts[0].replace(target)
            return
        if target.exists():  # a kill came later than the file was complete
            return
        dtype, (_, *row_shape) = form
        with array_writer(target, dtype, row_shape) as writer:
            for part in parts:
                for _, rows in blocks(np.load(part, mmap_mode='r')):
                    writer.append(rows)
        for part in parts:
            part.unlink()


@dataclass
class ArrayWriter:
    """Appends rows to a .npy file whose number of rows is not known yet."""

    file: BinaryIO
    dtype: np.dtype
    row_shape: tuple[int, ...]
    rows: int = 0

    def append(self, rows: np.ndarray) -> None:
        """Append rows, (n, *row_shape).

        Raises:
            ValueError: If they are of another type or shape.
        """
        found, expected = (rows.dtype, rows.shape[1:]), (self.dtype, self.row_shape)
        if found != expected:
            raise ValueError(f'rows of {found}, expected {expected}')
        self.file.write(np.ascontiguousarray(rows).data)
        self.rows += len(rows)

    def write_header(self) -> None:
        """Write it with the number of rows so far, at the start of the file."""
        # The format of version 1.0; NumPy's own writer chooses the length itself.
        shape = (self.rows, *self.row_shape)
        text = repr({'descr': self.dtype.str, 'fortran_order': False, 'shape': shape})
        length = _HEADER - 10
        self.file.seek(0)
        self.file.write(b'\x93NUMPY\x01\x00' + struct.pack('<H', length))
        self.file.write(text.ljust(length - 1).encode('latin1') + b'\n')


@contextlib.contextmanager
def array_writer(path: Path, dtype, row_shape: Sequence[int]) -> Iterator[ArrayWriter]:
    """A writer of a file that is there once it is complete."""
    with atomic_path(path) as temporary, open(temporary, 'wb') as file:
        writer = ArrayWriter(file, np.dtype(dtype), tuple(row_shape))
        writer.write_header()
        yield writer
        writer.write_header()


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
