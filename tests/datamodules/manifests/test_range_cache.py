"""The cache of packed videos on a local disk, before a storage in this process's memory."""

import errno
import multiprocessing
import os
import resource
import signal
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest

from datamodules.manifests import storage
from datamodules.manifests.byte_range import ByteRange
from datamodules.manifests.range_cache import RangeCache

FORK = multiprocessing.get_context("fork")
SIZES = [3000 + 100 * i for i in range(12)]
CONTENTS = [bytes([i]) * size for i, size in enumerate(SIZES)]
URL = "shelf://videos/shard.tar"


class Shelf(fsspec.AbstractFileSystem):
    """A storage of one file, all contents after each other.

    Attributes:
        asked: the first byte of each request.
        faults: what happens to the next requests, in their order: an error, or seconds to wait.
    """

    protocol = "shelf"
    asked: ClassVar[list[int]] = []
    faults: ClassVar[list[Exception | float]] = []

    def cat_file(self, path: str, start: int = 0, end: int | None = None, **_: Any) -> bytes:
        self.asked.append(start)
        fault = self.faults.pop(0) if self.faults else 0.0
        if isinstance(fault, Exception):
            raise fault
        time.sleep(fault)
        return b"".join(CONTENTS)[start:end]


fsspec.register_implementation("shelf", Shelf)


@pytest.fixture(autouse=True)
def shelf(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Shelf]]:
    """The storage, without faults; nothing has been read."""
    monkeypatch.setattr(storage, "RETRY_SECONDS", (0.001,) * 3)
    yield Shelf
    Shelf.asked.clear()
    Shelf.faults.clear()


def cache_of(folder: Path, limit: int = 1 << 30) -> RangeCache:
    return RangeCache(folder, limit / 2**30)


def videos(cache: RangeCache | None) -> list[ByteRange]:
    return [ByteRange(URL, sum(SIZES[:i]), n, f"{i}.mp4", cache) for i, n in enumerate(SIZES)]


def content(video: ByteRange) -> bytes:
    with video.open() as file:
        return file.read()


def copies(folder: Path) -> list[Path]:
    return list(folder.glob("??/[!.]*"))


def unfinished(folder: Path) -> list[Path]:
    return list(folder.glob("??/.*.unfinished"))


def size_of(folder: Path) -> int:
    """Bytes of all copies, whole or not."""
    total = 0
    for path in [*copies(folder), *unfinished(folder)]:
        with suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def taken(folder: Path) -> int:
    """Bytes that are taken, by the number that all processes share."""
    return struct.unpack("<qd", (folder / "usage").read_bytes())[0]


def test_what_is_here_costs_no_request(tmp_path: Path):
    for video, expected in zip(videos(cache_of(tmp_path)), CONTENTS, strict=True):
        assert content(video) == content(video) == expected
    assert Shelf.asked == [sum(SIZES[:i]) for i in range(len(SIZES))]
    assert taken(tmp_path) == size_of(tmp_path) == sum(SIZES)


def test_a_video_of_one_block_is_one_request():
    with videos(None)[3].open() as file:
        for whence in (os.SEEK_SET, os.SEEK_END, os.SEEK_SET):
            file.seek(0, whence)
            assert file.read() == (b"" if whence == os.SEEK_END else CONTENTS[3])
    assert len(Shelf.asked) == 1


def test_an_error_leaves_nothing(tmp_path: Path):
    video = videos(cache_of(tmp_path))[0]
    Shelf.faults += [TimeoutError("slow down\nand more")] * 4
    with pytest.raises(OSError, match=f"{URL}: TimeoutError: slow down$"):
        video.open()
    assert len(Shelf.asked) == 4
    assert taken(tmp_path) == size_of(tmp_path) == 0
    assert content(video) == CONTENTS[0]


def test_keeps_what_came_first_below_the_limit(tmp_path: Path):
    limit = sum(SIZES[:5]) + 10
    for _ in range(2):
        Shelf.asked.clear()
        for video, expected in zip(videos(cache_of(tmp_path, limit)), CONTENTS, strict=True):
            assert content(video) == expected
            assert size_of(tmp_path) <= limit
    assert len(copies(tmp_path)) == 5
    assert Shelf.asked == [sum(SIZES[:i]) for i in range(5, len(SIZES))]


def test_makes_room_for_others_when_nobody_reads_the_videos(tmp_path: Path):
    limit = sum(SIZES[-3:]) + 10
    old = videos(cache_of(tmp_path, limit))
    for video in old[:3]:
        content(video)
    opened = old[0].open()
    for path in copies(tmp_path):
        os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
    content(old[1])  # is read again
    cache = cache_of(tmp_path, limit)
    cache.sweep()
    Shelf.asked.clear()
    assert [content(video) for video in videos(cache)[1:]] == CONTENTS[1:]
    assert sum(SIZES[:1]) not in Shelf.asked  # the one that was read again has stayed
    assert len(Shelf.asked) < len(SIZES) - 1
    assert opened.read() == CONTENTS[0]  # what is open is not lost
    opened.close()
    assert taken(tmp_path) == size_of(tmp_path) <= limit


def test_a_smaller_limit_holds_from_the_next_start_on(tmp_path: Path):
    for video in videos(cache_of(tmp_path)):
        content(video)
    limit = sum(SIZES) // 2
    cache_of(tmp_path, limit).sweep()
    assert limit - max(SIZES) < taken(tmp_path) == size_of(tmp_path) <= limit


def read_all(folder: Path, limit: int, results: Any) -> None:
    results.put([content(video) for video in videos(cache_of(folder, limit))] == CONTENTS)


def started(folder: Path, limit: int, results: Any) -> Any:
    process = FORK.Process(target=read_all, args=(folder, limit, results), daemon=True)
    process.start()
    return process


def test_several_processes_at_once(tmp_path: Path):
    limit, results = sum(SIZES[:6]), FORK.SimpleQueue()
    Shelf.faults += [0.01] * len(SIZES)
    processes = [started(tmp_path, limit, results) for _ in range(3)]
    most = 0
    while any(process.is_alive() for process in processes):
        most = max(most, size_of(tmp_path))
        time.sleep(0.001)
    assert [results.get() for _ in processes] == [True] * 3
    assert 0 < most <= limit
    assert not unfinished(tmp_path)
    assert taken(tmp_path) == size_of(tmp_path)


def test_a_killed_process_leaves_nothing_wrong(tmp_path: Path):
    Shelf.faults += [0.0, 0.0, 60.0]
    process = started(tmp_path, 1 << 30, FORK.SimpleQueue())
    while len(copies(tmp_path)) < 2 or not unfinished(tmp_path):
        assert process.is_alive()
        time.sleep(0.01)
    cache = cache_of(tmp_path)
    cache.sweep()
    assert len(unfinished(tmp_path)) == 1  # it is being filled
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    cache.sweep()
    assert not unfinished(tmp_path)
    assert taken(tmp_path) == sum(SIZES[:2])
    Shelf.faults.clear()
    assert [content(video) for video in videos(cache)] == CONTENTS
    assert len(Shelf.asked) == len(SIZES) - 2


def test_a_damaged_copy_is_fetched_again(tmp_path: Path):
    video = videos(cache_of(tmp_path))[0]
    content(video)
    (copy,) = copies(tmp_path)
    for damaged in (CONTENTS[0][:100], CONTENTS[0] * 2):
        copy.write_bytes(damaged)
        assert content(video) == CONTENTS[0] == copy.read_bytes()
        assert taken(tmp_path) == SIZES[0] + (SIZES[0] - 100)  # never too low
    (tmp_path / "elsewhere").write_bytes(bytes(SIZES[0]))
    copy.unlink()
    copy.symlink_to(tmp_path / "elsewhere")  # not a copy of ours
    assert content(video) == CONTENTS[0]
    assert not copy.is_symlink()
    cache_of(tmp_path).sweep()
    assert taken(tmp_path) == SIZES[0]


def test_other_files_in_the_folder_are_left_alone(tmp_path: Path):
    (tmp_path / "ab").mkdir()
    for name in ("thesis.tex", "ab/thesis.tex"):
        (tmp_path / name).write_bytes(bytes(1000))
    cache_of(tmp_path, 100).sweep()
    assert len(list(tmp_path.rglob("thesis.tex"))) == 2


@pytest.mark.parametrize("path", ["videos/../../../up", "videos/a\0b", "videos/" + "a" * 300])
def test_names_of_files_come_from_no_url(tmp_path: Path, path: str):
    video = ByteRange(f"shelf://{path}", 0, 5, "v", cache_of(tmp_path / "cache"))
    assert content(video) == CONTENTS[0][:5]
    assert [other.name for other in tmp_path.iterdir()] == ["cache"]
    assert len(copies(tmp_path / "cache")) == 1


def read_only(open_file: Any) -> Any:
    def opened(path: Any, flags: int, *mode: int, **options: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
            raise OSError(errno.EROFS, "Read-only file system")
        return open_file(path, flags, *mode, **options)

    return opened


def full(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("disk", ["read-only", "full", "of small files", "a file"])
def test_a_disk_that_fails_ends_nothing(tmp_path: Path, disk: str, monkeypatch, caplog):
    folder = tmp_path / "cache"
    cache = cache_of(folder)
    content(videos(cache)[0])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    if disk == "read-only":
        monkeypatch.setattr(os, "open", read_only(os.open))
    elif disk == "full":
        monkeypatch.setattr(os, "fsync", full)
    elif disk == "a file":
        folder.rename(tmp_path / "old")
        folder.touch()
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (SIZES[0], limits[1]))
    Shelf.asked.clear()
    try:
        assert [content(video) for video in videos(cache)] == CONTENTS
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (message,) = [record.message for record in caplog.records]
    assert message.startswith(f"data.cache_dir: {folder} cannot be written to (")
    assert message.endswith("; videos come from the storage")
    # The copy is still read. One video is fetched twice where its copy fails at the end.
    others = len(SIZES) - (disk != "a file")
    assert len(Shelf.asked) == others + (disk == "full")
    if disk != "a file":
        assert not unfinished(folder)
        assert taken(folder) == size_of(folder) == SIZES[0]
