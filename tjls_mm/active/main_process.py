"""Work that process 0 does for all."""

from collections.abc import Callable
from typing import TypeVar

from mmengine.dist import broadcast_object_list, is_main_process

T = TypeVar('T')


def on_main_process(work: Callable[..., T], *args) -> T:
    """Run on process 0; all processes get its result, or its error.

    Without the error, the others would wait for ever.

    Args:
        work: What to run.
        args: Its arguments.

    Returns:
        What it returned, on every process.
    """
    outcome: list = [None, None]
    if is_main_process():
        try:
            outcome[0] = work(*args)
        except Exception as error:
            outcome[1] = error
    broadcast_object_list(outcome)
    result, error = outcome
    if error is not None:
        raise error
    return result
