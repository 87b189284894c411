"""Progress bars with an ETA for long work."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mmengine.dist import is_main_process
from rich.progress import track

T = TypeVar('T')


def progress(items: Iterable[T], description: str, total: int) -> Iterator[T]:
    """Iterate with a progress bar on process 0 and none elsewhere.

    Args:
        items: What to iterate.
        description: Shown before the bar.
        total: Number of items.
    """
    return track(items, description, total=total, disable=not is_main_process())
