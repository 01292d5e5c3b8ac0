"""Errors that a user can fix. Each is one line: what is wrong, where, and what to do."""

import errno
import os


class UserError(Exception):
    """Something is wrong with what the user gave, or the work cannot be done.

    The commands print the message as one line and end with `exit_code`; any other exception is a
    fault of the program and keeps its traceback.

    Attributes:
        exit_code: 2 for wrong usage or input, 1 where the work itself failed.
    """

    exit_code: int = 2


class DatasetError(UserError, ValueError):
    """A data set is not as described; the message names the file, the row and what to do."""


class AnnotationError(DatasetError):
    """The content of an annotation file is wrong; the data module's `diagnose` lists all faults."""


class VideoDecodeError(UserError, RuntimeError):
    """A file, or the part of it that was asked for, cannot be decoded.

    Attributes:
        path: the file.
        reason: one line, with FFmpeg's message where there is one.
    """

    exit_code = 1

    # An exception that comes from another process is rebuilt from its `args`.
    def __init__(self, path: str, reason: str = ""):
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


class UnreadableVideo(VideoDecodeError):
    """The storage does not give a file, or part of it; that says nothing about what is in it.

    It is gone, or may not be read, or the disk or the network has failed.
    """

    @property
    def is_missing(self) -> bool:
        """Whether there is no such file."""
        return self.reason.endswith(os.strerror(errno.ENOENT))


class StorageFailure(UserError, RuntimeError):
    """The storage does not give so many videos that the work ends unfinished."""

    exit_code = 1


class WorkerFailure(UserError, RuntimeError):
    """The machine ends processes that decode before they get any work."""

    exit_code = 1


class TooManyBadVideos(UserError, RuntimeError):
    """More of an epoch's videos cannot be decoded than ``data.max_bad_share`` tolerates."""

    exit_code = 1
