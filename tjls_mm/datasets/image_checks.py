"""Checks of image files before hours of training."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from PIL import Image, UnidentifiedImageError

from tjls_mm.errors import InputError
from tjls_mm.progress import progress

_EXIF_ORIENTATION = 0x0112


def image_size(path: str) -> tuple[int, int]:
    """(width, height) in pixels as loaded, EXIF orientation applied."""
    with Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(_EXIF_ORIENTATION, 1) in (5, 6, 7, 8)
        return (height, width) if turned else (width, height)


def _problem(path: str) -> str | None:
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
    except (
        UnidentifiedImageError,
        Image.DecompressionBombError,
        OSError,
        SyntaxError,
        ValueError,
    ) as error:
        return f'cannot be read as an image ({error})'.replace(repr(path), 'the file')
    return None


def check_images(paths: Mapping[str, str], source: str) -> None:
    """Decode every image once.

    Args:
        paths: image_id to path.
        source: Where the ids come from, for the message.

    Raises:
        InputError: If an image is missing, empty or unreadable; names the first
            five and counts the rest.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = progress(
            pool.map(_problem, paths.values()), 'Checking images', len(paths)
        )
        bad = [
            (image_id, problem)
            for image_id, problem in zip(paths, results, strict=True)
            if problem
        ]
    if bad:
        shown = '\n'.join(f'  {paths[i]} {problem}' for i, problem in bad[:5])
        more = f'\n  and {len(bad) - 5} more' if len(bad) > 5 else ''
        raise InputError(
            f'{len(bad)} of {len(paths)} images of {source} cannot be used:\n'
            f'{shown}{more}\nReplace these files, or remove them, and their lines from '
            'lists that name them.'
        )
