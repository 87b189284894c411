"""image_ids: how they are listed in files and where their images lie."""

import os.path as osp
from collections.abc import Iterable
from pathlib import Path

from tjls_mm.errors import InputError
from tjls_mm.files import write_text


def image_path(root: str, template: str, image_id: str) -> str:
    """Path of an image, e.g. ``VOC2007/000004``, without looking at the disk.

    The template, a path below the root, may say ``{image_id}``, ``{parent}`` and
    ``{name}``. An id that leads out of the root is an InputError.
    """
    parent, _, name = image_id.rpartition('/')
    below = template.format(image_id=image_id, parent=parent, name=name)
    below = osp.normpath(below.lstrip('/') if not parent else below)
    if osp.isabs(below) or below.split('/')[0] == '..':
        raise InputError(
            f'image_id {image_id!r} leads out of the data root {root}: '
            'expected a path below it.'
        )
    return osp.join(root, below)


def split_lines(text: str) -> list[str]:
    """Lines of a text file; ``str.splitlines`` also splits inside some names."""
    lines = text.replace('\r\n', '\n').split('\n')
    return lines[:-1] if lines[-1] == '' else lines


def read_image_ids(path: str | Path) -> list[str]:
    """The image_ids of a list file, one per line, in its order.

    A missing file, no text, a blank line or an id that stands twice is an InputError.
    """
    try:
        lines = split_lines(Path(path).read_text(encoding='utf-8-sig'))
    except FileNotFoundError:
        raise InputError(f'List file {path} does not exist.') from None
    except UnicodeDecodeError:
        raise InputError(f'List file {path} is not text: expected image_ids.') from None
    seen: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        if line != line.strip() or not line:
            raise InputError(
                f'{path}, line {number}: expected one image_id, found {line!r}.'
            )
        if line in seen:
            raise InputError(
                f'{path}: image_id {line!r} stands in line {seen[line]} and again '
                f'in line {number}. Remove one.'
            )
        seen[line] = number
    return lines


def write_image_ids(path: str | Path, image_ids: Iterable[str]) -> None:
    """Write a list file atomically, one id per line."""
    write_text(path, ''.join(f'{image_id}\n' for image_id in image_ids))
