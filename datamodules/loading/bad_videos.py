"""Lists of the videos that cannot be decoded, kept in files that many processes share."""

import csv
import fcntl
import logging
import os
from contextlib import suppress
from pathlib import Path
from typing import IO, NamedTuple

from datamodules.errors import DatasetError

log = logging.getLogger(__name__)

HEADER = ["path", "reason"]


class Failure(NamedTuple):
    """A video that an item was to be made of, and why it was not."""

    video_id: int
    label: int
    reason: str


class BadVideos:
    """Videos that failed, each logged and listed once; and those that are not opened again.

    A video that hangs the decoder or takes its process with it costs a worker each time. This
    process opens it no more. Such videos have a list of their own, which the trainings to come are
    given, too, and which holds until the video changes.

    Args:
        file: CSV with the columns path and reason, of this run; None: nothing is kept.
        killed_file: the same for what is not opened again, with a stamp that tells a changed video.

    Raises:
        DatasetError: one of the files exists and is no such list.
    """

    def __init__(self, file: Path | None, killed_file: Path | None = None) -> None:
        self._found = _Rows(file, HEADER)
        self._killed = _Rows(killed_file, [*HEADER, "stamp"])
        self._killed_here: dict[str, str] = {}  # path: reason

    def lists(self, path: str) -> bool:
        """Whether some run listed a video as not to be opened."""
        return path in self._killed.rows

    def why_not_open(self, path: str, stamp: str | None) -> str | None:
        """The reason for which a video is not opened; None if it may be.

        Args:
            path: of the video.
            stamp: see `Manifest.stamp`; None: only what this process found is asked for.
        """
        reason, then = self._killed.rows.get(path, ("", None))
        return self._killed_here.get(path, reason if stamp is not None and stamp == then else None)

    def note(self, path: str, reason: str) -> None:
        """Add a video that cannot be decoded."""
        if path not in self._found.rows and self._found.add(path, reason):
            log.warning(f"not decoded: {path}: {reason}")

    def note_killed(self, path: str, reason: str, stamp: str, keep: bool = True) -> Path | None:
        """Add a video that is not to be opened again; returns the file that lists it, if one does.

        Args:
            path: of the video.
            reason: what it did.
            stamp: see `Manifest.stamp`.
            keep: list it for other processes and runs.
        """
        self.note(path, reason)
        self._killed_here[path] = reason
        if not keep or self._killed.file is None:
            return None
        self._killed.add(path, reason, stamp)
        return self._killed.file

    def refresh(self) -> None:
        """Learn what other processes have added. A list that was spoilt meanwhile ends no run."""
        for rows in (self._found, self._killed):
            try:
                rows.read()
            except DatasetError as error:
                log.warning(str(error))


class _Rows:
    """Rows of a CSV file by their path, to which other processes append as well."""

    def __init__(self, file: Path | None, columns: list[str]) -> None:
        self.rows: dict[str, tuple[str, ...]] = {}
        self.file, self._columns = file, columns
        self._size = 0  # of what was read
        self.read()

    def read(self) -> None:
        """Take in what is there.

        Raises:
            DatasetError: it is no such list.
        """
        if self.file is None or not self.file.exists():
            return
        try:
            with open(self.file, newline="", encoding="utf-8") as file:
                _lock(file, fcntl.LOCK_SH)
                self._take_in(file)
        except OSError as error:
            raise DatasetError(f"{self.file}: not readable: {error.strerror}") from None

    def add(self, path: str, *cells: str) -> bool:
        """Add a row, unless some process has; returns whether it is new."""
        new = True
        if self.file is not None:
            try:
                new = self._append(self.file, path, *cells)
            except (OSError, DatasetError) as error:  # no run ends for that
                log.warning(f"{self.file}: {path} is not added: {error}")
        self.rows[path] = cells
        return new

    def _append(self, path: Path, *row: str) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+", newline="", encoding="utf-8") as file:
            _lock(file, fcntl.LOCK_EX)  # until it is closed
            self._take_in(file)
            if self.rows.get(row[0]) == row[1:]:
                return False
            writer = csv.writer(file, lineterminator="\n")
            size = file.seek(0, os.SEEK_END)
            if not size:
                writer.writerow(self._columns)
            elif not _ends_a_line(path):  # half a row, of a disk that was full
                file.write("\n")
            writer.writerow(row)
            file.flush()
            self._size = file.tell()
        return True

    def _take_in(self, file: IO[str]) -> None:
        size = file.seek(0, os.SEEK_END)
        if size == self._size:
            return
        file.seek(0)
        columns = self._columns
        try:
            header, *lines = list(csv.reader(file)) or [columns]
        except (UnicodeDecodeError, csv.Error):
            header, lines = [], []
        if header != columns:
            raise DatasetError(
                f"{file.name}: is no list of bad videos; expected the columns {', '.join(columns)}"
            )
        rows = ([*line, *[""] * len(columns)][: len(columns)] for line in lines if line)
        self.rows, self._size = {path: tuple(cells) for path, *cells in rows}, size


def _ends_a_line(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _lock(file: IO[str], kind: int) -> None:
    with suppress(OSError):  # a file system without locks
        fcntl.flock(file, kind)
