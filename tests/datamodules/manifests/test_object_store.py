"""Packed videos in an S3 store that is slow, busy and cuts connections; and their local cache."""

import logging
import multiprocessing
import os
import signal
import struct
import time
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pytest
import torch

from datamodules.folder import VideoFolderDataModule
from datamodules.manifests import storage
from datamodules.manifests.byte_range import ByteRange
from datamodules.manifests.packing import pack
from datamodules.manifests.parquet import ManifestMetadata, write_manifest
from datamodules.manifests.range_cache import RangeCache
from tests.datamodules.manifests.object_store import environment, object_store, upload
from tests.video_files import moving_frames, write_video

pytest.importorskip("moto", reason="needs moto[server]")
s3fs = pytest.importorskip("s3fs")

COUNT = 12  # videos
CLIP = {"num_frames": 2, "stride": 3, "size": (32, 32), "batch_size": 4, "eval_batch_size": 4}
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the split ``train``, and its packs in ``packed`` and (for S3) ``remote``."""
    root = tmp_path_factory.mktemp("videos")
    (root / "train").mkdir()
    names = [f"{i}.mp4" for i in range(COUNT)]
    for i, name in enumerate(names):
        write_video(root / "train" / name, moving_frames(10, seed=i))
    table = pa.table({"path": names, "label": [i % 2 for i in range(COUNT)]})
    metadata = ManifestMetadata(["one", "two"], str(root / "train"))
    write_manifest(root / "train/manifest.parquet", table, metadata)
    pack(root / "train", root / "packed/train", 30_000)
    pack(root / "train", root / "remote/train", 30_000, url="s3://videos")
    return root


@pytest.fixture(scope="module")
def server(root: Path):
    with object_store() as proxy:
        upload(proxy, (root / "remote/train").glob("*.tar"), "videos")
        yield proxy


@pytest.fixture
def store(server, monkeypatch: pytest.MonkeyPatch):
    """The proxy, without faults; what is read through it is read for the first time."""
    server.gets.clear()
    server.faults.clear()
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # its own, which nobody counts
    monkeypatch.setattr(storage, "_RETRY_SECONDS", (0.01, 0.02, 0.03))
    s3fs.S3FileSystem.clear_instance_cache()
    return server


def data_module(folder: Path, **options) -> VideoFolderDataModule:
    data = VideoFolderDataModule(folder, val=None, test=None, **CLIP, **options)
    data.setup("fit")
    return data


def epoch(loader) -> dict[int, torch.Tensor]:
    """The clip of each video of an epoch, each of which comes once."""
    batches = list(loader)
    assert not any(batch["failed"] for batch in batches)
    ids = [int(i) for batch in batches for i in batch["video_id"]]
    assert sorted(ids) == list(range(COUNT))
    return dict(zip(ids, torch.cat([batch["video"] for batch in batches]), strict=True))


def same(ours: dict[int, torch.Tensor], theirs: dict[int, torch.Tensor]) -> bool:
    return all(torch.equal(ours[i], theirs[i]) for i in range(COUNT))


def ranges(root: Path, cache: RangeCache | None = None) -> list[ByteRange]:
    """The videos in the store."""
    data = data_module(root / "remote")
    manifest = data.training_manifest()
    parts = [manifest.source(i) for i in range(COUNT)]
    return [ByteRange(p.url, p.offset, p.size, p.name, cache) for p in parts]


def content(part: ByteRange) -> bytes:
    with part.open() as file:
        return file.read()


def originals(root: Path) -> list[bytes]:
    return [(root / f"train/{i}.mp4").read_bytes() for i in range(COUNT)]


def size_of(folder: Path) -> int:
    """Bytes of all files in a cache, whole or not, besides its own numbers."""
    total = 0
    for path in folder.rglob("*"):
        with suppress(FileNotFoundError):
            total += path.stat().st_size if path.is_file() and path.name != "usage" else 0
    return total


@pytest.mark.parametrize("workers", [0, 2])
def test_every_clip_comes_once_through_all_faults(root: Path, store, workers: int, caplog):
    local = epoch(data_module(root / "packed").train_dataloader())
    store.faults += ["busy", 0.2, "cut", "busy", "busy", 0.1, "cut"]
    loader = data_module(root / "remote", num_workers=workers).train_dataloader()
    with caplog.at_level(logging.INFO):
        assert same(epoch(loader), local)
    faults = 5
    assert loader.traffic["retries"] == faults
    assert loader.traffic["requests"] == len(store.gets) >= COUNT + faults
    assert f"0.00 GiB in {len(store.gets)} requests, 5 of them retries" in caplog.text


@pytest.mark.parametrize("workers", [0, 2])
def test_the_second_epoch_asks_for_nothing(root: Path, store, tmp_path: Path, workers, caplog):
    local = data_module(root / "packed").train_dataloader()
    options = {"cache_dir": tmp_path / "cache", "num_workers": workers}
    loader = data_module(root / "remote", **options).train_dataloader()
    store.faults += ["busy", "cut"]
    assert same(epoch(loader), epoch(local))
    del loader.traffic["hits"]  # of videos that the decoder opened again
    assert loader.traffic == {
        "misses": COUNT,
        "requests": COUNT + 2,
        "retries": 2,
        "bytes": sum(map(len, originals(root))),
    }
    store.gets.clear()
    for one in (loader, local):
        one.sampler.set_epoch(1)
    with caplog.at_level(logging.INFO):
        assert same(epoch(loader), epoch(local))
    assert not store.gets
    assert loader.traffic["hits"] >= COUNT
    assert "in 0 requests, 0 of them retries; " in caplog.text


def test_a_storage_that_stays_busy_fails_after_four_requests(root: Path, store, tmp_path: Path):
    part = ranges(root, RangeCache(tmp_path, 1))[0]
    store.faults += ["busy"] * 4
    with pytest.raises(OSError, match=r"^\[Errno 5\] s3://videos/shard-00000.tar: .*reduce.*") as e:
        part.open()
    assert "\n" not in str(e.value)
    assert len(store.gets) == 4
    assert size_of(tmp_path) == 0
    assert content(part) == originals(root)[0]


def test_keeps_what_came_first_below_the_limit(root: Path, store, tmp_path: Path):
    videos = originals(root)
    limit = sum(map(len, videos[:5])) + 10
    cache = RangeCache(tmp_path, limit / 2**30)
    for _ in range(2):
        for part, original in zip(ranges(root, cache), videos, strict=True):
            assert content(part) == original
            assert size_of(tmp_path) <= limit
        asked, store.gets[:] = len(store.gets), []
    assert size_of(tmp_path) > limit / 2
    kept = sum(path.is_file() for path in tmp_path.glob("??/*"))
    assert asked == COUNT - kept


def test_makes_room_for_others_when_nobody_reads_the_videos(root: Path, store, tmp_path: Path):
    videos = originals(root)
    limit = sum(map(len, videos[:3])) + 10
    old = RangeCache(tmp_path, limit / 2**30)
    parts = ranges(root, old)
    for part in parts[:3]:
        content(part)
    opened = parts[0].open()
    for path in tmp_path.glob("??/*"):
        os.utime(path, (time.time() - 2 * 24 * 3600,) * 2)
    content(parts[1])  # is read again
    RangeCache(tmp_path, limit / 2**30).sweep()
    store.gets.clear()
    assert [content(part) for part in parts[1:]] == videos[1:]
    assert opened.read() == videos[0]  # what is open is not lost
    opened.close()
    assert size_of(tmp_path) <= limit


def test_a_smaller_limit_holds_from_the_next_start_on(root: Path, store, tmp_path: Path):
    for part in ranges(root, RangeCache(tmp_path, 1)):
        content(part)
    limit = size_of(tmp_path) // 2
    RangeCache(tmp_path, limit / 2**30).sweep()
    assert 0 < size_of(tmp_path) <= limit


def read_all(root: Path, folder: Path, limit: int, pipe) -> None:
    cache = RangeCache(folder, limit / 2**30)
    pipe.send([content(part) for part in ranges(root, cache)] == originals(root))


def test_several_processes_at_once(root: Path, store, tmp_path: Path):
    limit = sum(map(len, originals(root)[:6]))
    ours, theirs = FORK.Pipe()
    arguments = root, tmp_path, limit, theirs
    processes = [FORK.Process(target=read_all, args=arguments, daemon=True) for _ in range(3)]
    for process in processes:
        process.start()
    most = 0
    while any(process.is_alive() for process in processes):
        most = max(most, size_of(tmp_path))
        time.sleep(0.005)
    assert [ours.recv() for _ in processes] == [True] * 3
    assert 0 < most <= limit
    # The number that they share is right to the byte.
    taken, _ = struct.unpack("<qd", (tmp_path / "usage").read_bytes())
    assert taken == size_of(tmp_path)


def test_a_killed_process_leaves_nothing_wrong(root: Path, store, tmp_path: Path):
    store.faults += [0.0, 0.0, 60.0]
    pipe = FORK.Pipe()[1]
    process = FORK.Process(target=read_all, args=(root, tmp_path, 1 << 30, pipe), daemon=True)
    process.start()
    while len(store.gets) < 3:
        time.sleep(0.01)
    RangeCache(tmp_path, 1).sweep()
    assert len(list(tmp_path.glob("??/.*.unfinished"))) == 1  # it is being filled
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    cache = RangeCache(tmp_path, 1)
    cache.sweep()
    assert not list(tmp_path.glob("??/.*.unfinished"))
    store.gets.clear()
    assert [content(part) for part in ranges(root, cache)] == originals(root)
    assert len(store.gets) == COUNT - 2


def test_a_damaged_copy_is_fetched_again(root: Path, store, tmp_path: Path):
    cache = RangeCache(tmp_path, 1)
    part = ranges(root, cache)[0]
    content(part)
    (copy,) = tmp_path.glob("??/*")
    copy.write_bytes(copy.read_bytes()[:100])
    assert content(part) == originals(root)[0] == copy.read_bytes()
    (tmp_path / "elsewhere").write_bytes(bytes(part.size))
    copy.unlink()
    copy.symlink_to(tmp_path / "elsewhere")  # not a copy of ours
    assert content(part) == originals(root)[0]
    assert not copy.is_symlink()


def test_other_files_in_the_folder_are_left_alone(root: Path, store, tmp_path: Path):
    (tmp_path / "ab").mkdir()
    for name in ("thesis.tex", "ab/thesis.tex"):
        (tmp_path / name).write_bytes(bytes(1000))
    cache = RangeCache(tmp_path, 100 / 2**30)
    cache.sweep()
    assert len(list(tmp_path.rglob("thesis.tex"))) == 2


def test_names_of_files_come_from_no_url(store, tmp_path: Path):
    store.faults += ["busy"] * 99
    for url in ("s3://videos/../../../up", "s3://videos/a\0b"):
        with pytest.raises(OSError, match="s3://"):
            ByteRange(url, 0, 5, "v", RangeCache(tmp_path / "cache", 1)).open()
    assert {path.name for path in tmp_path.iterdir()} <= {"cache"}


@pytest.mark.parametrize("failing", ["open", "fsync"])
def test_a_disk_that_fails_ends_nothing(root, store, tmp_path, failing, monkeypatch, caplog):
    cache = RangeCache(tmp_path / "cache", 1)
    parts = ranges(root, cache)
    content(parts[0])

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    if failing == "open":
        (tmp_path / "cache/usage").unlink()
        (tmp_path / "cache/usage").mkdir()
    else:
        monkeypatch.setattr(os, "fsync", full)
    store.gets.clear()
    assert [content(part) for part in parts] == originals(root)
    (message,) = [r.message for r in caplog.records if r.levelno == logging.WARNING]
    assert message.startswith(f"data.cache_dir: {tmp_path}/cache cannot be written to (")
    assert message.endswith("; videos come from the storage")
    assert "videos/shard-00000.tar" in store.gets[0][0]
    assert len(store.gets) in (COUNT - 1, COUNT)  # the copy is still read


def test_wrong_keys_and_addresses_are_one_line(root: Path, store, monkeypatch):
    part = ranges(root)[0]
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match=r"s3://videos/shard-00000.tar: .*127.0.0.1:9") as caught:
        content(part)
    assert "\n" not in str(caught.value)


def test_the_limit_must_be_positive(root: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="cache_gib must be"):
        VideoFolderDataModule(root, cache_dir=tmp_path, cache_gib=0)
