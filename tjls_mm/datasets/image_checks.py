"""Checks of image files before hours of training."""

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from PIL import Image

from tjls_mm.errors import InputError
from tjls_mm.progress import progress

_EXIF_ORIENTATION = 0x0112
_UNREADABLE = (Image.DecompressionBombError, OSError, SyntaxError, ValueError)


def image_size(path: str) -> tuple[int, int]:
    """(width, height) in pixels as loaded, EXIF orientation applied.

    Raises:
        InputError: If the file is missing or no image.
    """
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


def unusable_images(paths: Mapping[str, str], where: str) -> Iterator[str]:
    """Decode every image of ``paths``, image_id to path, once, in threads.

    Yields:
        One message on those that are missing, empty or unreadable, if any: names the
        first five and counts the rest.
    """
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        results = pool.map(image_problem, paths.values())
        results = progress(results, 'Checking images', len(paths), bool(paths))
        pairs = zip(paths.values(), results, strict=True)
        bad = [f'  {path} {problem}' for path, problem in pairs if problem]
    if bad:
        more = f'\n  and {len(bad) - 5} more' if len(bad) > 5 else ''
        yield (
            f'{len(bad)} of {len(paths)} images of {where} cannot be used:\n'
            + '\n'.join(bad[:5])
            + f'{more}\nPut whole files in their place and run the same command '
            'again. Only a trial that has not begun can do without them: remove '
            'them, and their lines or entries from files that list them.'
        )
