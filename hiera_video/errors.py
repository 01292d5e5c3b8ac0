"""Errors that a user can fix. A command prints each as one line, without a traceback."""

import errno
import re
import sys

from datamodules.errors import UserError

__all__ = [
    "SILENT_PROCESS",
    "CheckpointError",
    "ChoiceError",
    "DamagedCheckpoint",
    "EmbeddingError",
    "LayoutError",
    "LostProcess",
    "PredictionFileError",
    "UsageError",
    "UserError",
    "as_user_error",
]

# What Gloo says of a process of the run that does not answer.
SILENT_PROCESS = re.compile("Timed out waiting|timeout caused pair closure")
# What the file system answers to a path that cannot be used, whenever it is tried. With any other
# answer, such as a full disk, the work itself has failed.
WRONG_PATH = {
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP),
    *(errno.EACCES, errno.EPERM, errno.EROFS),
}


class UsageError(UserError):
    """Wrong usage of a command, or work that failed.

    Args:
        message: one line.
        exit_code: 2 for wrong usage or input, 1 if the work failed.
    """

    def __init__(self, message: str, exit_code: int = 2) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LostProcess(UsageError):
    """Another process of the run has ended, for a reason that this one does not know."""


class CheckpointError(UserError, ValueError):
    """A file of weights cannot be read, or its weights do not fit the model."""


class DamagedCheckpoint(CheckpointError):
    """A file of weights is not as it was written."""


class PredictionFileError(UserError, ValueError):
    """A file of predictions cannot be used."""


class ChoiceError(UserError, ValueError):
    """Something is asked of a model or a video that it does not have."""


class EmbeddingError(UserError, ValueError):
    """Features of videos cannot be written or read."""


class LayoutError(UserError, ValueError):
    """The model cannot be written in another program's layout."""


def as_user_error(error: BaseException) -> UserError | None:
    """The error to print in place of an exception; None for a bug, which needs its traceback."""
    if isinstance(error, UserError):
        return error
    if isinstance(error, BrokenPipeError):  # whoever read the output has had enough
        return None
    if isinstance(error, OSError) and (error.filename is not None or error.strerror):
        # Of the two names in a rename, the second one is the user's.
        file = error.filename2 or error.filename
        where = f"{file}: " if file is not None else ""
        code = 2 if file is not None and error.errno in WRONG_PATH else 1
        return UsageError(f"{where}{error.strerror or error}", code)
    if isinstance(error, _misconfiguration()):
        return UsageError(str(error).strip().splitlines()[-1])
    return None


def _misconfiguration() -> tuple[type[Exception], ...]:
    """Lightning's exception for contradictory settings, if Lightning has been imported."""
    exceptions = sys.modules.get("lightning.fabric.utilities.exceptions")
    return () if exceptions is None else (exceptions.MisconfigurationException,)
