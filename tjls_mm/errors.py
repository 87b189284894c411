"""Errors for what a user can mend, and checks that find them."""

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: file, expected, found, what to do; tools print no traceback."""


class TrainingDiverged(RuntimeError):
    """A loss or a score is not finite; says where. Printed like InputError."""


def raise_first(problems: Iterable[str]) -> None:
    """Raise the first problem that a check yields, if any, as InputError."""
    for problem in problems:
        raise InputError(problem)
