"""Writing the store: every process a shard, process 0 joins them."""

import contextlib
import shutil
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from tjls_mm.errors import InputError
from tjls_mm.files import (
    atomic_path,
    file_hash,
    read_json,
    remove_leftovers,
    write_json,
)
from tjls_mm.image_ids import write_image_ids
from tjls_mm.outputs.outputs import IDS_FILE, INDEX_FILE, blocks, form

_HEADER = 256
"""Bytes of a .npy header whose number of rows is filled in at the end."""


class ShardedStore:
    """A folder of outputs in the making, a shard per process.

    Finished shards in ``parts/`` are used after a kill if they were made of the same.
    Files are joined one by one and their parts removed: the disk holds hardly more than
    one copy. ``index.json`` comes last.
    """

    def __init__(self, folder: Path, image_ids: list[str], world_size: int) -> None:
        self.folder, self.image_ids, self.world_size = folder, image_ids, world_size
        self.parts = folder / 'parts'

    def prepare(self, made_of: dict) -> list[int] | None:
        """Make the folder ready, on process 0.

        ``made_of`` is what the outputs depend on, for JSON, with ``list_sha256``.
        Returns the shards that are there, or None if all is joined.
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
        return [rank for rank in ranks if self._finished(rank) is not None]

    def _part(self, rank: int) -> Path:
        return self.parts / f'{rank:05d}_of_{self.world_size:05d}'

    def _finished(self, rank: int) -> dict[str, list] | None:
        """Type and shape of each file of a finished shard, None of another."""
        part = self._part(rank)
        files = _read(part / 'done.json').get('files')
        for name in files or ():
            paths = part / f'{name}.npy', self.folder / f'{name}.npy'
            if not any(path.exists() for path in paths):
                return None
        return files

    def write_shard(self, rank: int, batches: Iterable[Mapping]) -> None:
        """Write one shard; a batch maps file names without suffix to rows."""
        part, paths, append = self._part(rank), {}, {}
        (part / 'done.json').unlink(missing_ok=True)
        with contextlib.ExitStack() as stack:
            for batch in batches:
                for name, rows in batch.items():
                    if name not in append:
                        paths[name] = part / f'{name}.npy'
                        writer = array_writer(paths[name], rows.dtype, rows.shape[1:])
                        append[name] = stack.enter_context(writer)
                    append[name](rows)
        files = {n: form(np.load(path, mmap_mode='r')) for n, path in paths.items()}
        write_json(part / 'done.json', {'files': files})

    def join(self, names: Iterable[str]) -> None:
        """Join all shards to outputs of these names, process 0, which must see all."""
        files, parts = {}, {}
        for rank in range(self.world_size):
            shard = self._finished(rank)
            if shard is None:
                raise InputError(
                    f'Process 0 does not see {self._part(rank)} of process {rank}: '
                    'expected a work dir on a file system that all processes share.'
                )
            for name, (dtype, shape) in shard.items():
                whole = files.setdefault(name, [dtype, [0, *shape[1:]]])
                whole[1][0] += shape[0]
                parts.setdefault(name, []).append(self._part(rank) / f'{name}.npy')
        for name, whole in files.items():
            self._join_file(name, parts[name], whole)
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

    def _join_file(self, name: str, parts: list[Path], whole: list) -> None:
        target = self.folder / f'{name}.npy'
        if len(parts) == 1:
            if parts[0].exists():  # else a kill came right after
                parts[0].replace(target)
            return
        if target.exists():  # a kill came later than the file was complete
            return
        dtype, (_, *row_shape) = whole
        with array_writer(target, dtype, row_shape) as append:
            for part in parts:
                for _, rows in blocks(np.load(part, mmap_mode='r')):
                    append(rows)
        for part in parts:
            part.unlink()


@contextlib.contextmanager
def array_writer(path: Path, dtype, row_shape: Sequence[int]) -> Iterator[Callable]:
    """Yields what appends (n, *row_shape) to a file, which appears once complete."""
    expected, n_rows = (np.dtype(dtype), tuple(row_shape)), 0

    def append(rows: np.ndarray) -> None:
        nonlocal n_rows
        found = rows.dtype, rows.shape[1:]
        if found != expected:
            raise ValueError(f'rows of {found}, expected {expected}')
        file.write(np.ascontiguousarray(rows).data)
        n_rows += len(rows)

    def write_header() -> None:
        # The format of version 1.0; NumPy's own writer chooses the length itself.
        descr, shape = expected[0].str, (n_rows, *expected[1])
        text = repr({'descr': descr, 'fortran_order': False, 'shape': shape})
        length = _HEADER - 10
        file.write(b'\x93NUMPY\x01\x00' + struct.pack('<H', length))
        file.write(text.ljust(length - 1).encode('latin1') + b'\n')

    with atomic_path(path) as temporary, open(temporary, 'wb') as file:
        write_header()
        yield append
        file.seek(0)
        write_header()


def _read(path: Path) -> dict:
    return read_json(path) if path.exists() else {}
