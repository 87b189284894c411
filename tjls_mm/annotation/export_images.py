"""Copies of images for annotators: upright, under flat and unique names."""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tjls_mm.annotation.boxes import ImageRecord
from tjls_mm.errors import InputError
from tjls_mm.files import atomic_path, file_hash

# What browsers show, by Pillow's names.
_SHOWN = {'JPEG': '.jpg', 'MPO': '.jpg', 'PNG': '.png', 'WEBP': '.webp', 'BMP': '.bmp'}
_ORIENTATION = 0x0112
_UNREADABLE = (Image.DecompressionBombError, OSError, SyntaxError, ValueError)


def export_images(
    folder: str | Path, images: Iterable[tuple[str, str | Path | Image.Image]]
) -> list[ImageRecord]:
    """Write images for annotators.

    A file is copied as it is, unless EXIF turns it or no browser shows it: then it is
    turned, or becomes PNG. Names are ``000001_name_1a2b3c4d.jpg``: the rank, what the
    image was called, a hash of its image_id. Files that are there are kept, so the same
    call gives the same records again.

    Args:
        folder: Where to write.
        images: (image_id, file or pixels), in the order to label them.

    Returns:
        Records with the size as annotators and training see it.

    Raises:
        InputError: If an image cannot be read, or the folder not be written to.
    """
    return [
        _export(Path(folder), rank, image_id, image)
        for rank, (image_id, image) in enumerate(images, 1)
    ]


def export_name(rank: int, image_id: str, suffix: str) -> str:
    """Name of an exported file: ASCII, no blanks, unique over all ranks and stages."""
    name = re.sub(r'[^A-Za-z0-9-]+', '-', Path(image_id).stem)[:40].strip('-')
    digest = hashlib.blake2b(image_id.encode(), digest_size=4).hexdigest()
    return f'{rank:06d}_{name}_{digest}{suffix}'


def _export(
    folder: Path, rank: int, image_id: str, given: str | Path | Image.Image
) -> ImageRecord:
    is_file = not isinstance(given, Image.Image)
    try:
        image = Image.open(given) if is_file else given
        with image if is_file else contextlib.nullcontext():
            turned = image.getexif().get(_ORIENTATION, 1) not in (0, 1)
            suffix = _SHOWN.get(image.format or '', '.png')
            path = folder / export_name(rank, image_id, suffix)
            as_it_is = is_file and not turned and image.format in _SHOWN
            size = image.size
            if turned:
                image = ImageOps.exif_transpose(image)
                size = image.size
            if not path.exists():
                _write(path, given if as_it_is else image)
    except _UNREADABLE as error:
        if isinstance(error, InputError):
            raise
        where = given if is_file else image_id
        raise InputError(
            f'{where} cannot be exported for annotation ({error}). Put the whole '
            'image there.'
        ) from None
    return ImageRecord(image_id, path.name, *size, file_hash(path))


def _write(path: Path, image: str | Path | Image.Image) -> None:
    with atomic_path(path) as temporary:
        if isinstance(image, str | os.PathLike):
            shutil.copyfile(image, temporary)
        elif path.suffix == '.jpg':
            image.convert('RGB').save(temporary, 'JPEG', quality=95)
        elif path.suffix == '.png':
            if image.mode.startswith('I;16'):
                # As OpenCV reads 16 bits; Pillow would make nearly all of it white.
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            modes = ('1', 'L', 'LA', 'P', 'RGB', 'RGBA')
            image = image if image.mode in modes else image.convert('RGB')
            image.save(temporary, 'PNG')
        else:
            image.save(temporary, path.suffix[1:].upper())
