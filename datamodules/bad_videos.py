"""Lists of the videos that cannot be decoded, kept in files that many processes share."""

import csv
import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from datamodules.manifest_file import DatasetError

log = logging.getLogger(__name__)

HEADER = ["path", "reason"]


class TooManyBadVideos(RuntimeError):
    """More of an epoch's videos cannot be decoded than are tolerated; one line for the user."""


class Failure(NamedTuple):
    """A video that an item was to be made of, and why it was not."""

    video_id: int
    label: int
    reason: str


class BadVideos:
    """Videos that failed, each logged and listed once; and those that are not opened again.

    A video that hangs the decoder or takes its process with it costs a worker each time. Such ones
    have a list of their own, which later runs are given, too. A file that has changed since it was
    listed there gets another chance.

    Args:
        file: CSV with the columns path and reason, of this run; None: nothing is kept.
        killed_file: the same for what is not opened again, with the file's time of change.

    Raises:
        DatasetError: one of the files exists and is no such list.
    """

    def __init__(self, file: Path | None, killed_file: Path | None = None) -> None:
        self.killed_file = killed_file
        self._found = _Rows(file, HEADER)
        self._killed = _Rows(killed_file, [*HEADER, "changed_ns"])

    def why_not_open(self, path: str) -> str | None:
        """The reason for which a video is not opened; None if it may be."""
        if path not in self._killed.rows:
            return None
        reason, changed = self._killed.rows[path]
        return reason if changed == _changed(path) else None

    def note(self, path: str, reason: str) -> None:
        """Add a video that cannot be decoded."""
        if self._found.add(path, reason):
            log.warning(f"not decoded: {path}: {reason}")

    def note_killed(self, path: str, reason: str, *, keep: bool = True) -> None:
        """Add a video that is not to be opened again; by this process alone if not ``keep``."""
        self.note(path, reason)
        self._killed.add(path, reason, _changed(path), keep=keep)

    def refresh(self) -> None:
        """Learn what other processes have added."""
        self._found.read()
        self._killed.read()


class _Rows:
    """Rows of a CSV file by their path, which other processes append to as well."""

    def __init__(self, file: Path | None, columns: list[str]) -> None:
        self.rows: dict[str, tuple[str, ...]] = {}
        self._file, self._columns = file, columns
        self._size = 0  # of what was read
        self.read()

    def read(self) -> None:
        """Take in what is there."""
        if self._file is None or not self._file.exists():
            return
        try:
            with open(self._file, newline="", encoding="utf-8") as file:
                _lock(file, fcntl.LOCK_SH)
                self._take_in(file)
        except OSError as error:
            raise DatasetError(f"{self._file}: not readable: {error.strerror}") from None

    def add(self, path: str, *cells: str, keep: bool = True) -> bool:
        """Add a row, unless some process has; returns whether it is new."""
        if path in self.rows:
            return False
        new = True
        if self._file is not None and keep:
            try:
                new = self._append(self._file, path, *cells)
            except OSError as error:  # no run ends for that
                log.warning(f"{self._file}: not written: {error.strerror}: {path}")
        self.rows[path] = cells
        return new

    def _append(self, path: Path, *row: str) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+", newline="", encoding="utf-8") as file:
            _lock(file, fcntl.LOCK_EX)  # until it is closed
            self._take_in(file)
            if row[0] in self.rows:
                return False
            writer = csv.writer(file)
            if not file.seek(0, os.SEEK_END):
                writer.writerow(self._columns)
            writer.writerow(row)
            file.flush()
            self._size = file.tell()
        return True

    def _take_in(self, file: IO[str]) -> None:
        if file.seek(0, os.SEEK_END) == self._size:
            return
        self._size = file.tell()
        file.seek(0)
        reader = csv.DictReader(file)
        try:
            for row in reader:
                self.rows[row["path"]] = tuple(row[name] for name in self._columns[1:])
        except (KeyError, UnicodeDecodeError, csv.Error):
            raise DatasetError(
                f"{file.name}: is no list of bad videos; expected the columns "
                f"{', '.join(self._columns)}"
            ) from None


def _lock(file: IO[str], kind: int) -> None:
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, kind)


def _changed(path: str) -> str:
    """Time of a file's last change in nanoseconds; nothing where there is no such file."""
    try:
        return str(os.stat(path).st_mtime_ns)
    except OSError:
        return ""
