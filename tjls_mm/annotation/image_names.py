"""Exported images by the names that annotation tools give back."""

import re
from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

from tjls_mm.annotation.boxes import ImageRecord
from tjls_mm.errors import InputError

# Label Studio: of uploaded files in tasks, and of images in its exports.
_UPLOADED = re.compile(r'[0-9a-f]{8}(-|__)(?=.)')
# Roboflow: 000123_a.jpg becomes 000123_a_jpg.rf.<32 hex digits>.jpg
_ROBOFLOW = re.compile(r'_(jpe?g|png|bmp|webp)\.rf\.[0-9A-Za-z]{20,40}$')


class ImageNames:
    """Finds the record of an image by a name or path of it, renamed or not.

    Args:
        images: Their file names must differ without suffix, in more than case.

    Raises:
        InputError: If a name has a folder in it or is another's.
    """

    def __init__(self, images: Sequence[ImageRecord]) -> None:
        self._by_name = {}
        for image in images:
            name = image.file_name
            if base_name(name) != name or name in ('', '.', '..'):
                raise InputError(
                    f'Exported image {name!r}: expected a file name without folder.'
                )
            for key in {name.casefold(), stem(name).casefold()}:
                other = self._by_name.setdefault(key, image)
                if other is not image:
                    raise InputError(
                        f'Exported images {other.file_name!r} and {name!r}: annotation '
                        'tools need names that differ without suffix and case.'
                    )

    def find(self, name: str) -> ImageRecord | None:
        """The image of a file name, path or URL from a delivery, or None."""
        for candidate in _candidates(name):
            for key in (candidate, stem(candidate)):
                if (found := self._by_name.get(key.casefold())) is not None:
                    return found
        return None


def base_name(path: str) -> str:
    """Last part of a path with either kind of slash."""
    return re.split(r'[/\\]', path)[-1]


def stem(name: str) -> str:
    """A file name without its suffix."""
    return PurePosixPath(name).stem if name.strip('/') else ''


def _candidates(name: str) -> Iterator[str]:
    for text in (name, _served(name)):
        base = base_name(text)
        yield base
        yield unquote(base)
        base = unquote(base)
        if match := _UPLOADED.match(base):
            base = base[match.end() :]
            yield base
        yield _ROBOFLOW.sub('', stem(base))


def _served(url: str) -> str:
    """Path in a URL of Label Studio's, ``/data/local-files/?d=a/b.jpg``."""
    try:
        parts = urlsplit(url)
        (path, *_) = parse_qs(parts.query).get('d', [parts.path])
    except ValueError:
        return url
    return path
