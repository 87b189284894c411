"""Progress bars with an ETA for long work."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mmengine.dist import is_main_process
from rich.progress import track

T = TypeVar('T')


def progress(
    items: Iterable[T], description: str, total: int, shown: bool = True
) -> Iterator[T]:
    """Iterate with a progress bar on process 0 and none elsewhere.

    Args:
        items: What to iterate.
        description: Shown before the bar.
        total: Number of items.
        shown: Whether to show the bar at all.
    """
    disable = not (shown and is_main_process())
    return track(items, description, total=total, disable=disable)
