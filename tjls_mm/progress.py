"""Progress bars with an ETA for long work."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

from mmengine.dist import is_main_process
from rich.progress import track

T = TypeVar('T')


def progress(
    items: Iterable[T], description: str, total: int, shown: bool = True
) -> Iterator[T]:
    """Iterate with a progress bar on process 0, if at all, and none elsewhere."""
    disable = not (shown and is_main_process())
    return track(items, description, total=total, disable=disable)
