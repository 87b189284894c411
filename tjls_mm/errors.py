"""The error for what a user can mend."""


class InputError(ValueError):
    """Bad input: names the file, what was expected, what was found, what to do.

    The command-line tools print its message alone, without a traceback.
    """


class TrainingDiverged(RuntimeError):
    """A loss or a score is not finite; says where. Printed like InputError."""
