"""Videos of a storage, kept on a local disk that all processes of a machine share."""

import fcntl
import hashlib
import json
import logging
import mmap
import os
import re
import secrets
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from datamodules.manifests.storage import RemoteFile, StorageError, traffic

log = logging.getLogger(__name__)

_PIECE = 32 << 20  # bytes asked for at once
_UNREAD_SECONDS = 24 * 3600.0  # after these, a video makes room for others
_SWEEP_SECONDS = 3600.0  # at least, between two looks at all files
_NEARLY_FULL = 0.9  # share of the limit
_COPY, _UNFINISHED = re.compile(r"[0-9a-f]{64}"), re.compile(r"\.[0-9a-f]{16}\.unfinished")
_BROKEN, _FULL = 0, 1  # bytes of the memory that processes share


class RangeCache:
    """Local copies of byte ranges in a storage, below a limit of size.

    A range that is not here is fetched whole, once, if there is room. A copy appears under its name
    when it is complete; its name is a digest of URL, offset and size. Nothing asks whether the
    remote file has changed, which would cost a request for each video: give changed shards
    another name or URL, or remove the cache's folder.

    **What stays.** An epoch reads each video once, in a new order. Where the cache holds a share c
    of the videos, keeping those that came first gives c of the reads from disk in every epoch. No
    policy that does not know the order can do better. Dropping what was read least recently (LRU)
    gives ``c + (1 - c) * ln(1 - c)``: between a video's places p and q in two epochs (uniform in
    [0, 1]), a share ``1 - p * (1 - q)`` of all videos is read, which must be less than c. Replacing
    a random video is in between. For c = 0.5 these are 50 %, 15 % and 28 %; for c = 0.9, 90 %, 67 %
    and 83 %. So a full cache takes nothing in, and writes nothing. Only videos that no run has read
    for a day make room for others, such as those of another data set.

    **How it is shared.** The file ``usage`` holds how many bytes are taken. Under a lock on it, a
    process takes the room that it needs before it fetches; so all copies together never exceed the
    limit, unfinished ones included. All files are looked at when a run starts, and at most once an
    hour while the cache is full. What killed processes left behind is removed then: they no longer
    hold the lock on their unfinished file.

    A disk that is full, read-only or broken ends nothing: one warning, and videos that are not
    here are read from the storage.

    Args:
        folder: on a local disk; created where it does not exist.
        gib: greatest size of all copies together, in GiB.
    """

    def __init__(self, folder: str | Path, gib: float) -> None:
        self.folder, self._limit = Path(folder).expanduser().absolute(), int(gib * 2**30)
        self._flags = mmap.mmap(-1, 2)  # workers that are forked later share it

    def open(self, url: str, offset: int, size: int) -> BinaryIO | None:
        """Open the copy of a range; fetch it first if there is none.

        Returns:
            A file object of these ``size`` bytes; None if they must be read from the storage.

        Raises:
            StorageError: the storage does not give these bytes.
        """
        key = hashlib.sha256(json.dumps([url, offset, size]).encode()).hexdigest()
        place = self.folder / key[:2] / key
        if file := _open_whole(place, size):
            traffic["hits"] += 1
            return file
        traffic["misses"] += 1
        if self._flags[_BROKEN] or not 0 < size <= self._limit:
            return None
        try:
            self._fill(place, RemoteFile(url), offset, size)
            return _open_whole(place, size)
        except _NoRoom:
            self._say_once(_FULL, logging.INFO, "is full; other videos come from the storage")
        except StorageError:
            raise
        except OSError as error:
            self._give_up(error)
        return None

    def sweep(self) -> None:
        """Count what is here, remove leftovers and, if it is too much, what was not read lately."""
        try:
            with self._usage() as usage:
                self._sweep(usage)
        except OSError as error:
            self._give_up(error)

    def _fill(self, place: Path, remote: RemoteFile, offset: int, size: int) -> None:
        """Fetch a range to its place.

        Raises:
            _NoRoom: the cache is full.
        """
        with self._reserved(place.parent, size) as file:
            position, end = offset, offset + size
            while position < end:
                position += file.write(remote.read(position, min(end, position + _PIECE)))
            file.flush()
            os.fsync(file.fileno())
            with self._usage() as usage:
                # There may be a damaged copy, or one that another process has just fetched.
                replaced = place.lstat().st_size if _is_regular(place) else 0
                os.replace(file.name, place)
                usage.add(-min(replaced, size))

    @contextmanager
    def _reserved(self, folder: Path, size: int) -> Iterator[BinaryIO]:
        """Open a new file for which there is room; give the room back if it is not filled."""
        temporary = folder / f".{secrets.token_hex(8)}.unfinished"

        def give_back(kind: type[BaseException] | None, *_: object) -> None:
            if kind is not None:
                with self._usage() as usage:
                    temporary.unlink(missing_ok=True)
                    usage.add(-size)

        with ExitStack() as cleanup:
            with self._usage() as usage:
                if usage.taken + size > self._limit and time.time() - usage.swept > _SWEEP_SECONDS:
                    self._sweep(usage)
                if usage.taken + size > self._limit:
                    raise _NoRoom
                folder.mkdir(exist_ok=True)
                file = cleanup.enter_context(open(temporary, "xb"))
                fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed: it is being filled
                usage.add(size)  # a process that is killed here leaves too high a number
                cleanup.push(give_back)
                os.truncate(temporary, size)  # its whole size counts from the beginning
            yield file

    @contextmanager
    def _usage(self) -> Iterator["_Usage"]:
        """The numbers that all processes share, which only this process may change meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(self.folder / "usage", flags, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            usage = _Usage(descriptor)
            if not usage.swept:
                self._sweep(usage)
            yield usage
        finally:
            os.close(descriptor)

    def _sweep(self, usage: "_Usage") -> None:
        copies, taken = [], 0  # (when it was last read, its size, its path)
        for entry in self._files():
            with suppress(FileNotFoundError):
                status = entry.stat(follow_symlinks=False)
                if _COPY.fullmatch(entry.name):
                    copies.append((status.st_mtime, status.st_size, entry.path))
                elif not _is_locked(entry.path):
                    os.unlink(entry.path)
                    continue
                taken += status.st_size
        unread_since = time.time() - _UNREAD_SECONDS
        for last_read, size, path in sorted(copies):
            if taken <= (_NEARLY_FULL if last_read < unread_since else 1) * self._limit:
                break
            os.unlink(path)  # whoever has it open can go on reading
            taken -= size
        usage.set(taken, time.time())

    def _files(self) -> Iterator[os.DirEntry[str]]:
        """All files here that this class has written."""
        for number in range(256):
            with suppress(FileNotFoundError), os.scandir(self.folder / f"{number:02x}") as entries:
                for entry in entries:
                    ours = _COPY.fullmatch(entry.name) or _UNFINISHED.fullmatch(entry.name)
                    if ours and entry.is_file(follow_symlinks=False):
                        yield entry

    def _give_up(self, error: OSError) -> None:
        what = f"cannot be written to ({error.strerror or error}); videos come from the storage"
        self._say_once(_BROKEN, logging.WARNING, what)

    def _say_once(self, flag: int, level: int, what: str) -> None:
        if not self._flags[flag]:
            self._flags[flag] = 1
            log.log(level, f"data.cache_dir: {self.folder} {what}")


class _NoRoom(Exception):
    """The cache is full."""


class _Usage:
    """The file ``usage``, which is locked.

    Attributes:
        taken: bytes of all copies, and of those that are being fetched.
        swept: when they were last counted, seconds since 1970; 0: never.
    """

    _FORMAT = struct.Struct("<qd")

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        data = os.pread(descriptor, self._FORMAT.size, 0)
        self.taken, self.swept = (
            self._FORMAT.unpack(data) if len(data) == self._FORMAT.size else (0, 0.0)
        )

    def set(self, taken: int, swept: float) -> None:
        self.taken, self.swept = taken, swept
        os.pwrite(self._descriptor, self._FORMAT.pack(taken, swept), 0)

    def add(self, size: int) -> None:
        self.set(self.taken + size, self.swept)


def _open_whole(place: Path, size: int) -> BinaryIO | None:
    """Open a copy, and note that it was read; None if there is none or it is damaged."""
    try:
        descriptor = os.open(place, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    file = open(descriptor, "rb")  # noqa: SIM115
    if os.fstat(descriptor).st_size != size:
        file.close()
        return None
    with suppress(OSError):  # a disk may be read-only
        os.utime(descriptor)
    return file


def _is_regular(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_locked(path: str) -> bool:
    """Whether a process has a lock on a file, and so is alive."""
    with open(path, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
