"""Checks of image files before hours of training."""

import os

from PIL import Image

from tjls_mm.errors import InputError

_EXIF_ORIENTATION = 0x0112
_UNREADABLE = (Image.DecompressionBombError, OSError, SyntaxError, ValueError)


def image_size(path: str) -> tuple[int, int]:
    """(width, height) in pixels as loaded, EXIF orientation applied, or InputError."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
    except _UNREADABLE:
        problem = image_problem(path) or 'cannot be read as an image'
        raise InputError(f'{path} {problem}. Put the whole file there.') from None
    return (height, width) if turned else (width, height)


def image_problem(path: str) -> str | None:
    """What is wrong with an image file, or None; decodes it."""
    try:
        if os.path.getsize(path) == 0:
            return 'is empty'
        with Image.open(path) as image:
            # A JPEG decodes several times faster at an eighth of its size, and a
            # truncated one still shows.
            image.draft(None, (image.width // 8, image.height // 8))
            image.load()
    except FileNotFoundError:
        return 'does not exist'
    except _UNREADABLE as error:
        return f'cannot be read as an image ({error})'.replace(repr(path), 'the file')
    return None
