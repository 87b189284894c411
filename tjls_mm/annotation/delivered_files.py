"""Opens what strangers deliver: a file, a folder or a zip, never out of it."""

import hashlib
import json
import lzma
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element, ParseError

from defusedxml import ElementTree
from defusedxml.common import DefusedXmlException

from tjls_mm.errors import InputError

MAX_BYTES = 256 << 20
"""Of one file, unpacked."""
MAX_FILES = 200_000
"""Entries of one folder or zip."""

# Whatever zipfile raises of a broken file; NotImplementedError is its word for a
# compression that it does not know.
_BAD_ZIP = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError),
    *(IndexError, OverflowError, RuntimeError, ValueError),
    *(lzma.LZMAError, struct.error),
)


class Unusable(InputError):
    """A delivered file that cannot be read: ``what`` is wrong and what to do."""

    def __init__(self, what: str, advice: str) -> None:
        super().__init__(f'{what}. {advice}')
        self.what, self.advice = what, advice


class DeliveredFiles:
    """Read-only files of a delivery, by their names below the delivered path.

    Links, and entries of a zip that lead out of it, are not opened: ``refused`` has
    them. Nothing is unpacked to the disk.

    Args:
        path: A file, a folder or a zip.

    Attributes:
        names: Sorted, with '/', hidden ones left out.
        refused: (name, reason) of what is not opened.

    Raises:
        InputError: If the path does not exist, or the zip cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.refused: list[tuple[str, str]] = []
        self._zip: zipfile.ZipFile | None = None
        if self.path.is_dir():
            found = list(self._walk())
        elif not self.path.is_file():
            expected = 'a file, folder or zip of annotations'
            raise InputError(f'{path} does not exist: expected {expected}.')
        elif self.path.suffix.lower() == '.zip':
            found = list(self._open_zip())
        else:
            found = [self.path.name]
        if len(found) > MAX_FILES:
            raise InputError(
                f'{path} holds {len(found)} files: expected at most {MAX_FILES}. '
                'Deliver the annotations of this stage alone.'
            )
        self.names = sorted(found)

    def __enter__(self) -> 'DeliveredFiles':
        return self

    def __exit__(self, *_) -> None:
        if self._zip is not None:
            self._zip.close()

    def _walk(self) -> Iterator[str]:
        for parent, folders, names in os.walk(self.path, followlinks=False):
            below = os.path.relpath(parent, self.path)
            links = [f for f in folders if os.path.islink(os.path.join(parent, f))]
            folders[:] = sorted(f for f in set(folders) - set(links) if _is_shown(f))
            for name in sorted(names + links):
                path = os.path.join(parent, name)
                named = os.path.normpath(os.path.join(below, name))
                named = named.replace(os.sep, '/')
                if not _is_shown(name):
                    continue
                if not stat.S_ISREG(os.lstat(path).st_mode):
                    self.refused.append((named, 'is a link or no plain file'))
                else:
                    yield named

    def _open_zip(self) -> Iterator[str]:
        try:
            self._zip = zipfile.ZipFile(self.path)
            entries = self._zip.infolist()
        except _BAD_ZIP as error:
            raise InputError(
                f'{self.path} cannot be read as a zip ({error}). Export it again.'
            ) from None
        seen = set()
        for entry in entries:
            name = entry.filename.replace('\\', '/')
            parts = PurePosixPath(name).parts
            # The upper half of a zip's attributes is the mode of Unix.
            if stat.S_ISLNK(entry.external_attr >> 16):
                self.refused.append((name, 'is a link'))
            elif name.startswith('/') or '..' in parts or ':' in name:
                self.refused.append((name, 'leads out of the zip'))
            elif entry.filename in seen:
                self.refused.append((name, 'is twice in the zip'))
            elif name and name[-1] != '/' and all(map(_is_shown, parts)):
                seen.add(entry.filename)
                yield entry.filename

    def with_suffix(self, *suffixes: str) -> list[str]:
        """Names that end in one of the suffixes, '.xml', whatever their case."""
        return [name for name in self.names if name.lower().endswith(suffixes)]

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """Content of a file; Unusable if it is larger than ``limit`` or damaged."""
        try:
            if self._zip is not None:
                file = self._zip.open(name)
            else:
                file = open(self.path / name if self.path.is_dir() else self.path, 'rb')
            with file:
                data = file.read(limit + 1)
        except _BAD_ZIP as error:
            reason = str(error).replace(str(self.path), 'the file')
            raise Unusable(f'cannot be read ({reason})', 'Export it again.') from None
        if len(data) > limit:
            raise Unusable(
                f'has more than {limit / (1 << 20):.0f} MB',
                'Deliver the annotations of this stage alone.',
            )
        return data

    def sha256(self, name: str) -> str:
        """Of a file's content, as hex; empty if it cannot be read."""
        try:
            return hashlib.sha256(self.read(name)).hexdigest()
        except Unusable:
            return ''


def _is_shown(name: str) -> bool:
    return not name.startswith('.') and name != '__MACOSX'


def parse_json(data: bytes):
    """Content of a JSON file, without NaN and infinities, or Unusable."""

    def no_number(text: str):
        raise ValueError(f'{text} is no number of JSON')

    try:
        return json.loads(data, parse_constant=no_number)
    # RecursionError: brackets without end.
    except (RecursionError, ValueError) as error:
        raise Unusable(f'is no JSON ({error})', 'Export it again.') from None


def parse_xml(data: bytes) -> Element:
    """Root of an XML file, or Unusable; one with a DOCTYPE is refused."""
    try:
        return ElementTree.fromstring(data, forbid_dtd=True)
    except DefusedXmlException:
        raise Unusable(
            'has a DOCTYPE, which may hold entities that fill the memory or open '
            'other files',
            'Export it again, or remove the DOCTYPE.',
        ) from None
    except (LookupError, ParseError, RecursionError, ValueError) as error:
        raise Unusable(f'is no XML ({error})', 'Export it again.') from None


def parse_text(data: bytes) -> str:
    """Content of a text file in UTF-8, with or without mark, or Unusable."""
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError:
        raise Unusable(
            'is no text in UTF-8', 'Save it as UTF-8 (CSV UTF-8 in Excel).'
        ) from None
