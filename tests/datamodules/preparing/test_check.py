import os

import pytest

import datamodules.preparing.check as checking
from datamodules.errors import UnreadableVideo
from datamodules.manifests.packing import pack
from datamodules.manifests.splits import list_split, read_split
from datamodules.preparing.check import Fault, check
from datamodules.preparing.prepare import prepare
from datamodules.video.transcoding import Encoding
from tests.video_files import moving_frames, write_video


@pytest.fixture
def videos(tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    options = {"preset": "ultrafast", "crf": "10"}
    for i in range(5):
        faststart = {"movflags": "+faststart"}
        frames = moving_frames(10, seed=i)
        write_video(root / f"{i}.mp4", frames, options=options, container_options=faststart)
    return root


def prepared(videos, out, **kwargs):
    prepare(list_split(videos, videos, None), videos, out, **kwargs)
    return read_split(out, out, None)


def damage(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def test_nothing_is_wrong(videos, tmp_path):
    assert check(list_split(videos, videos, None)) == []
    manifest = prepared(videos, tmp_path / "out")
    assert check(manifest) == []
    assert check(manifest, decode=True) == []


def test_what_was_prepared_is_compared_and_not_decoded(videos, tmp_path):
    (videos / "2.mp4").write_text("no video")
    manifest = prepared(videos, tmp_path / "out")
    (videos / "0.mp4").unlink()
    (videos / "1.mp4").write_bytes((videos / "3.mp4").read_bytes() + b"more")
    os.utime(videos / "3.mp4", ns=(1, 1))
    damage(videos / "4.mp4")
    decoded = []
    found = check(manifest, progress=lambda done, total: decoded.append(total))
    assert decoded == [3] * 3
    names = [(fault.kind, os.path.basename(fault.path)) for fault in found]
    assert names == [
        *(("missing", "0.mp4"), ("changed", "1.mp4"), ("corrupt", "2.mp4")),
        *(("changed", "3.mp4"), ("corrupt", "4.mp4")),
    ]
    assert found[1].detail.endswith("when it was prepared")
    assert found[3].detail == "written to since it was prepared"
    assert all(fault.detail for fault in found[1:])
    assert str(found[0]) == f"missing  {videos}/0.mp4"


def test_damage_that_keeps_size_and_time_shows_when_files_are_decoded(videos, tmp_path):
    manifest = prepared(videos, tmp_path / "out")
    status, data = os.stat(videos / "1.mp4"), bytearray((videos / "1.mp4").read_bytes())
    data[-2000:] = bytes(2000)
    (videos / "1.mp4").write_bytes(data)
    os.utime(videos / "1.mp4", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert check(manifest) == []
    (fault,) = check(manifest, decode=True)
    assert (fault.kind, os.path.basename(fault.path)) == ("corrupt", "1.mp4")


def test_files_that_were_not_prepared_are_decoded(videos, tmp_path):
    damage(videos / "1.mp4")
    source = tmp_path / "list.txt"
    source.write_text("0.mp4\n1.mp4\ngone.mp4\n1.mp4\n")
    (videos / "gone.mp4").touch()
    manifest = list_split(source, videos, None)
    (videos / "gone.mp4").unlink()
    found = check(manifest, processes=2)
    kinds = [(fault.kind, os.path.basename(fault.path)) for fault in found]
    assert kinds == [("corrupt", "1.mp4"), ("missing", "gone.mp4")]


def test_what_cannot_be_read_is_not_called_corrupt(videos, tmp_path, monkeypatch):
    def ask(source, *arguments):
        raise UnreadableVideo(source, "Permission denied")

    monkeypatch.setattr(checking, "probe", ask)
    monkeypatch.setattr(
        checking, "work", lambda do, items, **_: [(item, do(item, print)) for item in items]
    )
    faults = check(list_split(videos, videos, None))
    assert str(faults[0]) == f"unreadable  {videos}/0.mp4: Permission denied"
    assert len(faults) == 5
    manifest = prepared(videos, tmp_path / "out")
    videos.rename(tmp_path / "moved")
    videos.touch()
    assert {fault.kind for fault in check(manifest)} == {"unreadable"}  # not a directory


def test_transcoded_files_and_those_that_could_not_be(videos, tmp_path):
    damage(videos / "1.mp4")
    manifest = prepared(videos, tmp_path / "out", encoding=Encoding(gop=4))
    (fault,) = check(manifest)
    assert (fault.kind, fault.path) == ("corrupt", str(tmp_path / "out/1.mp4"))
    (tmp_path / "out/0.mp4").unlink()
    assert [fault.kind for fault in check(manifest)] == ["missing", "corrupt"]


def test_packed_videos(videos, tmp_path):
    prepared(videos, tmp_path / "out")
    pack(tmp_path / "out", tmp_path / "packed", shard_bytes=20_000)
    manifest = read_split(tmp_path / "packed", tmp_path, None)
    shards = sorted((tmp_path / "packed").glob("*.tar"))
    assert len(shards) > 2
    for video in videos.iterdir():
        video.unlink()
    assert check(manifest) == []
    assert check(manifest, decode=True) == []
    last = manifest.table["shard"].to_pylist().count(shards[-1].name)
    shards[-1].write_bytes(shards[-1].read_bytes()[:600])
    shards[0].unlink()
    found = check(manifest)
    assert found[0] == Fault("missing", manifest.path(0), f"{shards[0].name} is gone")
    assert [fault.detail for fault in found][-last:] == [f"{shards[-1].name} is cut off"] * last
