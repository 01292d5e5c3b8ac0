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
    """A video that could not be made into an item.

    Attributes:
        video_id: index in the manifest.
        label: id of its class, -1 if unknown.
        reason: why, one line.
        unreadable: whether the storage does not give it; see `UnreadableVideo`.
    """

    video_id: int
    label: int
    reason: str
    unreadable: bool = False


class BadVideos:
    """Videos that failed, each logged and listed once, and those that are not opened again.

    A video that hangs or crashes the decoder costs a worker each time, so this process does not
    open it again. Such videos have a list of their own, which later trainings read, too. An entry
    in that list holds until the video changes.

    Args:
        file: this run's list, a CSV with the columns path and reason. None: no list is kept.
        killed_file: the list of videos that are not opened again. It has a third column, the stamp,
            which tells whether a video has changed.

    Raises:
        DatasetError: one of the files exists and is not such a list.
    """

    def __init__(self, file: Path | None, killed_file: Path | None = None) -> None:
        self._failed = _SharedCsv(file, HEADER)
        self._killed = _SharedCsv(killed_file, [*HEADER, "stamp"])
        self._killed_here: dict[str, str] = {}  # path: reason, in this process

    def lists(self, path: str) -> bool:
        """Whether the list of videos not to open has a video."""
        return path in self._killed.rows

    def why_not_open(self, path: str, stamp: str | None) -> str | None:
        """The reason why a video must not be opened; None if it may be.

        Args:
            path: of the video.
            stamp: see `Manifest.stamp`. None: ignore what other runs have listed.
        """
        reason, listed_stamp = self._killed.rows.get(path, ("", None))
        holds = stamp is not None and stamp == listed_stamp
        return self._killed_here.get(path, reason if holds else None)

    def note(self, path: str, reason: str) -> None:
        """Add a video that cannot be decoded; it is logged the first time."""
        if path not in self._failed.rows and self._failed.add(path, reason):
            log.warning(f"not decoded: {path}: {reason}")

    def note_killed(self, path: str, reason: str, stamp: str, keep: bool = True) -> Path | None:
        """Add a video that is not to be opened again.

        Args:
            path: of the video.
            reason: what it did to its worker, one line.
            stamp: see `Manifest.stamp`.
            keep: list it for other processes and runs, too.

        Returns:
            The file that lists it; None if no file does.
        """
        self.note(path, reason)
        self._killed_here[path] = reason
        if not keep or self._killed.file is None:
            return None
        self._killed.add(path, reason, stamp)
        return self._killed.file

    def refresh(self) -> None:
        """Read what other processes have added. A list that is now damaged is only logged."""
        for shared in (self._failed, self._killed):
            try:
                shared.read()
            except DatasetError as error:
                log.warning(str(error))


def read_bad_videos(file: Path) -> list[tuple[str, str]]:
    """Path and reason of each row of a run's list, also of a damaged one; empty without a list."""
    if not file.is_file():
        return []
    with open(file, newline="", encoding="utf-8", errors="replace") as lines:
        rows = list(csv.DictReader(lines))
    return [(row["path"], row.get("reason") or "") for row in rows if row.get("path")]


class _SharedCsv:
    """A CSV file that several processes append rows to.

    Args:
        file: the file, which need not exist. None: rows are kept in memory only.
        columns: its header; the first column is ``path``.

    Attributes:
        rows: the other cells of each row, by path.
    """

    def __init__(self, file: Path | None, columns: list[str]) -> None:
        self.rows: dict[str, tuple[str, ...]] = {}
        self.file, self._columns = file, columns
        self._size = 0  # bytes read so far
        self.read()

    def read(self) -> None:
        """Read the rows of all processes.

        Raises:
            DatasetError: the file has other columns or cannot be read.
        """
        if self.file is None or not self.file.exists():
            return
        try:
            with open(self.file, newline="", encoding="utf-8") as file:
                _lock(file, fcntl.LOCK_SH)
                self._load(file)
        except OSError as error:
            raise DatasetError(f"{self.file}: not readable: {error.strerror}") from None

    def add(self, path: str, *cells: str) -> bool:
        """Add a row unless another process has done so; return whether it is new."""
        new = True
        if self.file is not None:
            try:
                new = self._append(self.file, path, *cells)
            except (OSError, DatasetError) as error:  # no reason to end a run
                log.warning(f"{self.file}: {path} was not added: {error}")
        self.rows[path] = cells
        return new

    def _append(self, path: Path, *row: str) -> bool:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a+", newline="", encoding="utf-8") as file:
            _lock(file, fcntl.LOCK_EX)  # until it is closed
            self._load(file)
            if self.rows.get(row[0]) == row[1:]:
                return False
            writer = csv.writer(file, lineterminator="\n")
            size = file.seek(0, os.SEEK_END)
            if not size:
                writer.writerow(self._columns)
            elif not _ends_with_newline(path):  # half a row, left when the disk was full
                file.write("\n")
            writer.writerow(row)
            file.flush()
            self._size = file.tell()
        return True

    def _load(self, file: IO[str]) -> None:
        """Read all rows, if the file has grown."""
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
                f"{file.name}: not a list of bad videos; expected the columns {', '.join(columns)}"
            )
        rows = ([*line, *[""] * len(columns)][: len(columns)] for line in lines if line)
        self.rows, self._size = {path: tuple(cells) for path, *cells in rows}, size


def _ends_with_newline(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"


def _lock(file: IO[str], kind: int) -> None:
    with suppress(OSError):  # some file systems have no locks
        fcntl.flock(file, kind)
