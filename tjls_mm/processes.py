"""Work that process 0 does for all, and errors that all share."""

import pickle
from collections.abc import Callable
from typing import TypeVar

from mmengine.dist import all_gather_object, broadcast_object_list, is_main_process

T = TypeVar('T')


def on_main_process(work: Callable[..., T], *args) -> T:
    """Run on process 0; all get its result or error, without which they would hang."""
    outcome: list = [None, None]
    if is_main_process():
        try:
            outcome[0] = work(*args)
        except Exception as error:
            outcome[1] = _sendable(error)
    broadcast_object_list(outcome)
    result, error = outcome
    if error is not None:
        error.is_shared = True
        raise error
    return result


def on_every_process(work: Callable[..., T], *args) -> T:
    """Run on every process; if one fails, all do. Returns the result of this one."""
    result, error = None, None
    try:
        result = work(*args)
    except Exception as caught:
        error = _sendable(caught)
    errors = [e for e in all_gather_object(error) if e is not None]
    if errors:
        error = error or errors[0]
        error.is_shared = True
        raise error
    return result


def _sendable(error: Exception) -> Exception:
    """The error, or its repr: a user's own class may not be picklable."""
    try:
        pickle.loads(pickle.dumps(error))
        return error
    except Exception:
        return RuntimeError(repr(error)).with_traceback(error.__traceback__)
