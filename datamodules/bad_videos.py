"""A list of the videos that cannot be decoded, kept in a file from run to run."""

import csv
import fcntl
import logging
import os
from pathlib import Path
from typing import NamedTuple

log = logging.getLogger(__name__)

HEADER = ["path", "fault", "reason"]


class TooManyBadVideos(RuntimeError):
    """More of an epoch's videos cannot be decoded than are tolerated; one line for the user."""


class Failure(NamedTuple):
    """A video that an item was to be made of, and why it was not."""

    video_id: int
    label: int
    reason: str


class BadVideos:
    """Videos that failed, each logged and written once.

    Two kinds of fault: ``error``, where the decoder said so, and ``killed``, where it hung or took
    its process with it. A video of the second kind is not opened again, neither in this run nor in
    one that is given the same file.

    Args:
        file: CSV with the columns path, fault, reason; made when there is something to write. Many
            processes may append to it. None: nothing is kept.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.killed: dict[str, str] = {}  # path: reason
        self._written: set[str] = set()
        self._logged: set[str] = set()
        if file is None or not file.exists():
            return
        with open(file, newline="", encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                self._written.add(row["path"])
                if row["fault"] == "killed":
                    self.killed[row["path"]] = row["reason"]

    def note(self, path: str, reason: str, *, killed: bool = False) -> None:
        """Add a video."""
        if killed:
            self.killed[path] = reason
        if path not in self._logged:
            self._logged.add(path)
            log.warning(f"not decoded: {path}: {reason}")
        if self.file is None or path in self._written:
            return
        self._written.add(path)
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            if not file.seek(0, os.SEEK_END):
                writer.writerow(HEADER)
            writer.writerow([path, "killed" if killed else "error", reason])
