"""The error for what a user can mend."""

from collections.abc import Iterable


class InputError(ValueError):
    """Bad input: names the file, what was expected, what was found, what to do.

    The command-line tools print its message alone, without a traceback.
    """


class TrainingDiverged(RuntimeError):
    """A loss or a score is not finite; says where. Printed like InputError."""


def raise_first(problems: Iterable[str]) -> None:
    """Raise the first of the problems that a check yields.

    Args:
        problems: Messages; checks are generators, so nothing is looked at after the
            first.

    Raises:
        InputError: If there is one.
    """
    for problem in problems:
        raise InputError(problem)
