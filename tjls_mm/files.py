"""Atomic writing: a file is complete or it is not there."""

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tjls_mm.errors import InputError

# What mkstemp makes of the prefix and suffix below.
_TEMPORARY = re.compile(r'\..+\.[a-z0-9_]{8}(\.\w+)?')
_REFUSALS = 'ENOSPC EDQUOT EFBIG EROFS EACCES EPERM ENOTDIR EISDIR EEXIST EIO'.split()


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Where to write what becomes ``path`` at the end; its folder is made if missing.

    The content is on disk before the name changes, and the folder's entry after.
    If the block raises, the temporary file is removed and ``path`` is untouched.

    Raises:
        InputError: If the disk is full or the folder cannot be written to.
    """
    path = Path(path)
    try:
        with _atomic_path(path) as temporary:
            yield temporary
    except Exception as error:
        reason = _refused_by_disk(error)
        if reason is None:
            raise
        raise InputError(
            f'{path} cannot be written ({reason}). What was there is kept: make room '
            'or allow writing to the folder, and run the same command again.'
        ) from error


def _refused_by_disk(error: BaseException) -> str | None:
    seen = error
    while seen is not None:
        if isinstance(seen, OSError) and errno.errorcode.get(seen.errno) in _REFUSALS:
            return os.strerror(seen.errno)
        seen = seen.__cause__ or seen.__context__
    # torch's own writer says no more than that it wrote less than it wanted.
    if 'inline_container' in str(error):
        return 'the disk is full, or files may not grow so large'
    return None


@contextlib.contextmanager
def _atomic_path(path: Path) -> Iterator[Path]:
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(
        dir=path.parent, prefix=f'.{path.name}.', suffix=path.suffix
    )
    os.close(handle)
    # mkstemp makes files private to the user; results are as the umask says.
    umask = os.umask(0)
    os.umask(umask)
    os.chmod(name, 0o666 & ~umask)
    try:
        yield Path(name)
        with open(name, 'rb') as file:
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_leftovers(folder: str | Path) -> None:
    """Remove what ``atomic_path`` had begun in a folder when a kill came."""
    for path in Path(folder).glob('.*'):
        if path.is_file() and _TEMPORARY.fullmatch(path.name):
            path.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a file atomically, UTF-8."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def write_json(path: str | Path, value) -> None:
    """Write a JSON file atomically, indented."""
    write_text(path, json.dumps(value, indent=2) + '\n')


def read_json(path: str | Path) -> dict:
    """A JSON object; an empty one where the file holds something else."""
    try:
        content = json.loads(Path(path).read_text(encoding='utf-8'))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's content, as hex."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
