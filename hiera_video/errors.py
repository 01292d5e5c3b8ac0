"""Errors that a user can mend, and what else becomes one line at the end of a command."""

import sys

from datamodules.errors import UserError

__all__ = [
    "CheckpointError",
    "LayoutError",
    "PredictionFileError",
    "UsageError",
    "UserError",
    "as_user_error",
]


class UsageError(UserError):
    """Wrong words, or work that failed.

    Args:
        message: one line.
        exit_code: 2 for wrong usage or input, 1 where the work failed.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CheckpointError(UserError, ValueError):
    """A file of weights cannot be read, or its weights do not fit the model."""


class PredictionFileError(UserError, ValueError):
    """A file of predictions cannot be used."""


class LayoutError(UserError, ValueError):
    """Another program's layout has no place for the model."""


def as_user_error(error: BaseException) -> UserError | None:
    """What a command prints of an exception; None for a bug, whose traceback is wanted."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, OSError) and (error.filename is not None or error.strerror):
        # The disk, not the data. A rename has two names, and the second one is the user's.
        file = error.filename2 or error.filename
        where = f"{file}: " if file is not None else ""
        return UsageError(f"{where}{error.strerror or error}", 1)
    if isinstance(error, _misconfiguration()):
        return UsageError(str(error).strip().splitlines()[-1])
    return None


def _misconfiguration() -> tuple[type[Exception], ...]:
    """Lightning's exception for settings that contradict each other, if Lightning is loaded."""
    exceptions = sys.modules.get("lightning.fabric.utilities.exceptions")
    return () if exceptions is None else (exceptions.MisconfigurationException,)
