"""Packed videos in an S3 store that is slow, busy and cuts connections."""

import logging
from dataclasses import replace
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

pytest.importorskip("moto", reason="needs moto[s3], flask and flask-cors")
s3fs = pytest.importorskip("s3fs")

COUNT = 8  # videos
CLIP = {"num_frames": 2, "stride": 3, "size": (32, 32), "batch_size": 4, "eval_batch_size": 4}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the split ``train``, and its packs in ``packed`` and (for S3) ``remote``."""
    root = tmp_path_factory.mktemp("videos")
    (root / "train").mkdir()
    names = [f"{i}.mp4" for i in range(COUNT)]
    for i, name in enumerate(names):  # some of them so that the decoder begins anew
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
    monkeypatch.setattr(storage, "RETRY_SECONDS", (0.01, 0.02, 0.03))
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


def first_video(root: Path, cache: RangeCache | None = None) -> ByteRange:
    """A video in the store."""
    source = data_module(root / "remote").training_manifest().source(0)
    return replace(source, cache=cache)


def content(part: ByteRange) -> bytes:
    with part.open() as file:
        return file.read()


def originals(root: Path) -> list[bytes]:
    return [(root / f"train/{i}.mp4").read_bytes() for i in range(COUNT)]


@pytest.mark.parametrize("workers", [0, 2])
def test_every_clip_comes_once_through_all_faults(root: Path, store, workers: int, caplog):
    local = epoch(data_module(root / "packed").train_dataloader())
    # With two workers, all three failures may meet one video, which is asked for four times.
    store.faults += ["busy", 0.2, "cut", 0.1, "busy"]
    failures = 3
    loader = data_module(root / "remote", num_workers=workers).train_dataloader()
    with caplog.at_level(logging.INFO):
        assert same(epoch(loader), local)
    assert loader.traffic == {
        "requests": COUNT + failures,
        "retries": failures,
        "bytes": sum(map(len, originals(root))),
    }
    assert len(store.gets) == COUNT + failures
    assert f"0.00 GiB in {len(store.gets)} requests, {failures} of them retries" in caplog.text


def test_the_second_epoch_asks_for_nothing(root: Path, store, tmp_path: Path, caplog):
    local = data_module(root / "packed").train_dataloader()
    options = {"cache_dir": tmp_path / "cache", "num_workers": 2}
    loader = data_module(root / "remote", **options).train_dataloader()
    store.faults += ["busy", "cut"]
    assert same(epoch(loader), epoch(local))
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
    assert loader.traffic["hits"] == COUNT
    assert f"in 0 requests, 0 of them retries; {COUNT} of {COUNT} videos were in" in caplog.text


def test_a_storage_that_stays_busy_fails_after_four_requests(root: Path, store, tmp_path: Path):
    part = first_video(root, RangeCache(tmp_path, 1))
    store.faults += ["busy"] * 4
    with pytest.raises(OSError, match=r"^\[Errno 5\] s3://videos/shard-00000.tar: .*reduce.*") as e:
        part.open()
    assert "\n" not in str(e.value)
    assert len(store.gets) == 4
    assert not list(tmp_path.glob("??/*"))
    assert content(part) == originals(root)[0]


def test_wrong_keys_and_addresses_are_one_line(root: Path, store, monkeypatch):
    part = first_video(root)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(OSError, match=r"s3://videos/shard-00000.tar: .*127.0.0.1:9") as caught:
        content(part)
    assert "\n" not in str(caught.value)


def test_the_limit_must_be_positive(root: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="cache_gib must be"):
        VideoFolderDataModule(root, cache_dir=tmp_path, cache_gib=0)
