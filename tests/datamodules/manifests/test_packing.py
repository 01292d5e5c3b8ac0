"""Packed videos are the same videos."""

import os
import subprocess
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pytest

from datamodules.errors import DatasetError, VideoDecodeError
from datamodules.manifests.byte_range import ByteRange
from datamodules.manifests.packing import pack
from datamodules.manifests.parquet import ManifestMetadata, write_manifest
from datamodules.manifests.splits import Manifest, read_split
from datamodules.video.decoding import VideoFile
from tests.video_files import moving_frames, write_video

NAMES = ("a/moov at end.mp4", "a/ü.webm", "b/third.mkv", "b/" + "long" * 40 + ".ts")
TIMES = [1.2, 0, 0.7, 0.4]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the videos NAMES."""
    root = tmp_path_factory.mktemp("videos")
    for i, name in enumerate(NAMES):
        (root / name).parent.mkdir(exist_ok=True)
        codec = {"codec": "libvpx-vp9", "options": {"cpu-used": "8"}} if "webm" in name else {}
        write_video(root / name, moving_frames(40, seed=i), **codec)
    return root


def write(root: Path, names=NAMES, **columns) -> Path:
    """Write a manifest of these names and return its file."""
    table = {"path": list(names), "label": [i % 2 for i in range(len(names))], **columns}
    path = root / "manifest.parquet"
    write_manifest(path, pa.table(table), ManifestMetadata(["one", "two"], str(root)))
    return path


def frames(source) -> np.ndarray:
    with VideoFile(source) as file:
        return file.frames_at([*TIMES, file.duration], size=48)


def packed(out: Path) -> Manifest:
    return read_split(out, Path("nowhere"), None)


@pytest.mark.parametrize("shard_bytes", [1, 60_000, 1 << 30], ids=["each", "some", "one"])
def test_frames_from_a_pack(videos: Path, tmp_path: Path, shard_bytes: int):
    pack(write(videos), tmp_path, shard_bytes)
    manifest, before = packed(tmp_path), read_split(videos, videos, None)
    shards = {manifest.table["shard"][i].as_py() for i in range(len(NAMES))}
    assert len(shards) == {1: 4, 1 << 30: 1}.get(shard_bytes, len(shards))
    assert manifest.class_names == ("one", "two")
    assert manifest.table["label"].to_pylist() == [0, 1, 0, 1]
    for i, name in enumerate(NAMES):
        assert manifest.path(i) == before.path(i) == str(videos / name)
        assert np.array_equal(frames(manifest.source(i)), frames(videos / name))


def test_shards_are_ordinary_tar_files(videos: Path, tmp_path: Path):
    pack(write(videos), tmp_path / "out", 1)
    for shard in sorted((tmp_path / "out").glob("*.tar")):
        subprocess.run(["tar", "xf", shard, "-C", tmp_path], check=True, capture_output=True)
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (videos / name).read_bytes()


def test_shards_in_a_store(videos: Path, tmp_path: Path):
    pack(write(videos), tmp_path, url="memory://pack/")
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path / "shard-00000.tar"), "/pack/shard-00000.tar")
    (tmp_path / "shard-00000.tar").unlink()
    try:
        for i, name in enumerate(NAMES):
            remote = packed(tmp_path).source(i)
            assert isinstance(remote, ByteRange)
            assert remote.url == "memory://pack/shard-00000.tar"
            assert np.array_equal(frames(remote), frames(videos / name))
        for offset, size in ((0, 0), (10**9, 99)):  # empty; past the end
            with pytest.raises(VideoDecodeError, match=r"a\.mp4"):
                frames(ByteRange("memory://pack/shard-00000.tar", offset, size, "a.mp4"))
    finally:
        store.rm("/pack", recursive=True)
    with pytest.raises(VideoDecodeError, match="FileNotFoundError"):
        frames(ByteRange("memory://pack/shard-00000.tar", 0, 99, "a.mp4"))


@pytest.mark.parametrize(("failures", "waits"), [(2, [0.5, 2]), (99, [0.5, 2, 8])])
def test_a_store_that_is_busy_is_asked_again(
    videos: Path, monkeypatch: pytest.MonkeyPatch, failures: int, waits: list[float]
):
    files = fsspec.filesystem("memory")
    files.pipe_file("/busy/a.mp4", next(videos.rglob("*.mp4")).read_bytes())
    source = ByteRange("memory://busy/a.mp4", 0, files.size("/busy/a.mp4"), "a.mp4")
    cat_file, calls, slept = type(files).cat_file, [], []

    def busy(self, *args, **kwargs):
        calls.append(args)
        if len(calls) <= failures:
            raise RuntimeError("503 Slow Down\nand more")
        return cat_file(self, *args, **kwargs)

    monkeypatch.setattr(type(files), "cat_file", busy)
    monkeypatch.setattr("time.sleep", slept.append)
    if failures < 4:
        assert len(frames(source))
    else:
        with pytest.raises(VideoDecodeError, match=r"busy/a.mp4: RuntimeError: 503 Slow Down$"):
            frames(source)
    assert len(slept) == len(waits)
    assert all(least <= wait <= 2 * least for wait, least in zip(slept, waits, strict=True))


def test_a_range_is_a_file(tmp_path: Path):
    content = np.random.default_rng(0).bytes(200_000)
    (tmp_path / "shard").write_bytes(content)
    expected = content[1000:150_000]
    with ByteRange(str(tmp_path / "shard"), 1000, len(expected), "v").open() as file:
        assert file.read(10) == expected[:10]
        assert file.seek(-7, os.SEEK_END) == len(expected) - 7
        assert file.read() == expected[-7:]
        assert file.seek(5) == 5
        assert file.seek(70_000, os.SEEK_CUR) == 70_005
        assert file.read(70_000) == expected[70_005:140_005]
        assert file.seek(10**6) == 10**6
        assert file.read(5) == b""
        with pytest.raises((OSError, ValueError)):
            file.seek(-1)
        file.seek(0)
        assert file.read() == expected
    with pytest.raises(ValueError, match="closed"):
        file.read()


def test_a_shard_that_is_cut_off_or_gone(videos: Path, tmp_path: Path):
    pack(write(videos), tmp_path)
    shard = tmp_path / "shard-00000.tar"
    shard.write_bytes(shard.read_bytes()[: packed(tmp_path).source(3).offset + 100])
    with pytest.raises(VideoDecodeError, match="cut off"):
        frames(packed(tmp_path).source(3))
    shard.unlink()
    with pytest.raises(VideoDecodeError, match=r"shard-00000\.tar: No such file"):
        frames(packed(tmp_path).source(0))


def test_goes_on_after_a_kill(videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    manifest = write(videos)
    pack(manifest, tmp_path / "whole", 1)
    out = tmp_path / "out"

    def killed(done: int, total: int) -> None:
        assert 0 < done < total
        if done > total / 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pack(manifest, out, 1, killed)
    assert not (out / "manifest.parquet").exists()
    first = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert 0 < len(first) < len(NAMES)
    (out / ".pack.unfinished/.0123.unfinished").write_bytes(b"half")
    steps = []
    for _ in range(2):
        pack(manifest, out, 1, lambda *step: steps.append(step))
    assert steps[3] == steps[7] == (steps[3][1],) * 2
    whole, ended = (
        {path.name: path.read_bytes() for path in folder.iterdir()}
        for folder in (tmp_path / "whole", out)
    )
    assert ended == whole
    assert first.items() <= {p.name: p.stat().st_mtime_ns for p in out.iterdir()}.items()


def test_shards_of_other_videos_are_kept(videos: Path, tmp_path: Path):
    pack(write(videos), tmp_path, 1)
    content = {p: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(DatasetError, match="not a shard of this data set"):
        pack(write(videos), tmp_path)
    with pytest.raises(DatasetError, match="holds other videos"):
        pack(write(videos, NAMES[::-1]), tmp_path, 1)
    assert content == {p: p.read_bytes() for p in tmp_path.iterdir()}


def test_the_same_video_twice(videos: Path, tmp_path: Path):
    pack(write(videos, [*NAMES, NAMES[0]]), tmp_path)
    table = packed(tmp_path).table
    assert table["offset"][0] == table["offset"][4]
    assert table["label"].to_pylist() == [0, 1, 0, 1, 0]


def test_bad_and_missing_videos(videos: Path, tmp_path: Path):
    broken = videos / "broken.mp4"
    broken.write_bytes(b"no video")
    names = [*NAMES, "broken.mp4", "gone.mp4"]
    ok = [True] * 4 + [False] * 2
    try:
        pack(write(videos, names, ok=ok, reason=[""] * 4 + ["a", "b"]), tmp_path)
    finally:
        broken.unlink()
    manifest = packed(tmp_path)
    assert manifest.table["bytes"].to_pylist()[-2:] == [8, 0]
    assert manifest.table["reason"].to_pylist()[-2:] == ["a", "b"]
    for i in (4, 5):
        with pytest.raises(VideoDecodeError):
            frames(manifest.source(i))
    with pytest.raises(DatasetError, match=r"row 4: .*gone\.mp4: No such file"):
        pack(write(videos, [*NAMES, "gone.mp4"]), tmp_path / "other")


def test_changed_since_prepared(videos: Path, tmp_path: Path):
    sizes = [(videos / name).stat().st_size for name in NAMES]
    sizes[2] += 1
    with pytest.raises(DatasetError, match=r"row 2: .*third\.mkv has changed"):
        pack(write(videos, bytes=sizes, ok=[True] * 4), tmp_path)
    times = [(videos / name).stat().st_mtime_ns for name in NAMES]
    times[0] += 999_999_999 - times[0] % 1_000_000_000  # of which a tar file keeps the second
    os.utime(videos / NAMES[0], ns=(times[0], times[0] - times[0] % 1_000_000_000))
    times[1] -= 1
    with pytest.raises(DatasetError, match=r"row 1: .* was written after it was prepared"):
        pack(write(videos, modified_ns=times, ok=[True] * 4), tmp_path)
    assert not list(tmp_path.glob("*.tar"))


def test_what_is_no_manifest(videos: Path, tmp_path: Path):
    with pytest.raises(DatasetError, match="no manifest"):
        pack(tmp_path, tmp_path / "out")
    pack(write(videos), tmp_path / "out")
    with pytest.raises(DatasetError, match="packed already"):
        pack(tmp_path / "out", tmp_path / "again")
