"""Files that are there whole or not at all."""

import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from datamodules.errors import DatasetError

log = logging.getLogger(__name__)

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Name a file in the error of a disk that is full: the system names none if a write fails."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL and error.filename is None:
            error.filename = str(path)
        raise


@contextmanager
def atomic_file(path: Path, folder: Path | None = None) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes ``path`` when the block ends without an error.

    A process that is killed leaves at most a file whose name begins with a dot and ends with
    ``.unfinished``; what was at ``path`` before stays until the new file is whole and on disk.

    Args:
        path: the file to write; its folder must exist.
        folder: where the temporary file lies, on the same file system; by default beside ``path``.

    Raises:
        OSError: the file cannot be written; if the disk is full, the error names ``path``.
    """
    # A random name: processes on several machines may write to a folder, with the same ids.
    temporary = (folder or path.parent) / f".{secrets.token_hex(8)}.unfinished"
    try:
        with naming(path):
            yield temporary
            with open(temporary, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any, indent: int | None = 2) -> None:
    """Write a value as an `atomic_file` of JSON, in UTF-8 whatever the locale is.

    Args:
        path: the file; its folder must exist.
        value: plain values. Bytes of a file's name that are no text come back as they were.
        indent: of each level, in blanks; None: all is on one line.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False) + "\n"
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def sync_folder(folder: Path) -> None:
    """See that the names of new files in a folder survive a loss of power."""
    with contextlib.suppress(OSError):  # some network file systems sync names by themselves
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def locked_folder(folder: Path) -> Iterator[Path]:
    """Give a folder for unfinished work to this run alone; half files of a killed run are removed.

    Args:
        folder: is created if it is missing; the folder that it lies in must exist.

    Raises:
        DatasetError: another run has it.
    """
    folder.mkdir(exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"{folder.parent}: another run is writing here") from None
        except OSError as error:  # such as Lustre's, mounted without them
            log.warning(
                f"{folder.parent}: its file system has no locks ({error.strerror}); see that no "
                "other run writes there"
            )
        for leftover in folder.glob(".*.unfinished"):
            leftover.unlink()
        yield folder
    finally:
        os.close(lock)


def take_lock(file: IO[str]) -> None:
    """Lock a file for this process, until it closes the file or ends.

    The lock is POSIX's: processes that this one forks do not have it, and closing any other opening
    of the file gives it back, too.

    Args:
        file: open for writing.

    Raises:
        OSError: another process has the lock, or the file system has no locks.
    """
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        time.sleep(0.2)  # another process may just have looked whether it is locked
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
