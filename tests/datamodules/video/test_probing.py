import errno
import io
import os
import pickle
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from av.error import FFmpegError
from PIL import Image

from datamodules.errors import UnreadableVideo, VideoDecodeError
from datamodules.manifests.byte_range import ByteRange
from datamodules.video.container import decode_error
from datamodules.video.decoding import VideoFile
from datamodules.video.in_order import InOrder, Watched
from datamodules.video.probing import Facts, probe, stamp
from tests.video_files import moving_frames, write_video

DATA = Path(__file__).parents[4] / "shared" / "data"
REAL = sorted(p for p in DATA.glob("*/*") if p.suffix in {".mp4", ".mkv", ".webm", ".avi"})
FRAMES = moving_frames(50)


def test_facts_of_a_file(tmp_path):
    path = write_video(
        tmp_path / "a.mp4", FRAMES, rate=25, options={"g": "20", "sc_threshold": "0"}
    )
    expected = Facts(2.0, 50, 25.0, 96, 64, 0, "h264", 20, True, "")
    assert probe(str(path)) == expected
    assert probe(str(path), every_frame=False) == expected


@pytest.mark.parametrize(
    ("name", "codec", "expected"),
    [
        ("a.mkv", "libx264", "h264"),
        ("a.ts", "libx264", "h264"),
        ("a.avi", "libx264", "h264"),
        ("a.h264", "libx264", "h264"),
        ("a.webm", "libvpx-vp9", "vp9"),
        ("a.mov", "mpeg4", "mpeg4"),
    ],
)
def test_formats_that_do_not_count_their_frames(tmp_path, name, codec, expected):
    path = write_video(tmp_path / name, FRAMES, codec=codec)
    facts = probe(str(path))
    assert facts.ok, facts.reason
    assert (facts.num_frames, facts.codec) == (50, expected)
    assert facts.duration == pytest.approx(50 / 30, abs=0.04)
    assert probe(str(path), every_frame=False).num_frames == 50


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_picture_has_the_size_that_is_displayed(tmp_path, degrees):
    facts = probe(str(write_video(tmp_path / "a.mp4", FRAMES[:5], rotation=degrees)))
    shape = (96, 64) if degrees % 180 == 0 else (64, 96)
    assert (facts.width, facts.height, facts.rotation) == (*shape, degrees)


def test_irregular_times_and_edit_lists(tmp_path):
    pts = np.cumsum(np.random.default_rng(0).integers(1, 5, 50)).tolist()
    path = str(write_video(tmp_path / "a.mp4", FRAMES, pts=pts))
    with InOrder(path) as frames:
        starts = [frame.start * frames.time_base for frame in frames]
    assert starts == [Fraction(p, 30) + starts[0] - Fraction(pts[0], 30) for p in pts]
    path = str(write_video(tmp_path / "b.mp4", FRAMES, start=-10))  # ten frames are hidden
    facts = probe(path)
    assert (facts.ok, facts.num_frames) == (True, 40)
    with VideoFile(path) as file:
        assert facts.duration == file.duration


@pytest.mark.parametrize("seed", range(2))
def test_the_last_frame_is_within_the_duration(tmp_path, seed):
    """Of frames of 8 to 90 ms and a pause, stored in another order than shown."""
    lasting = np.random.default_rng(seed).integers(8, 91, 50)
    lasting[20] = 2000
    pts = (np.cumsum(lasting) - lasting[0]).tolist()
    path = str(write_video(tmp_path / "a.mp4", FRAMES, rate=1000, options={"bf": "3"}, pts=pts))
    with InOrder(path) as frames:
        last = [float(frame.start * frames.time_base) for frame in frames][-1]
    with VideoFile(path) as file:
        assert last < file.duration
        assert file.duration == pytest.approx(probe(path).duration, abs=0.05)


@pytest.mark.skipif(not REAL, reason=f"no clips in {DATA}")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_clips(path):
    facts = probe(str(path))
    assert facts.ok, facts.reason
    with av.open(str(path)) as container:
        assert facts.num_frames == sum(1 for _ in container.decode(video=0))
    assert facts.num_frames == pytest.approx(facts.duration * facts.rate, abs=1)


def test_files_that_are_no_videos_say_why(tmp_path):
    (tmp_path / "empty.mp4").touch()
    assert probe(str(tmp_path / "empty.mp4")).reason == "the file is empty"
    (tmp_path / "text.mp4").write_text("no video")
    assert not probe(str(tmp_path / "text.mp4")).ok
    os.mkfifo(tmp_path / "pipe.mp4")
    assert probe(str(tmp_path / "pipe.mp4")).reason == "not a file"
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\na.ts\n")
    assert not probe(str(tmp_path / "list.m3u8")).ok


@pytest.mark.parametrize("every_frame", [True, False])
def test_a_folder_of_frames(tmp_path, every_frame):
    for i in range(1, 5):
        Image.new("RGB", (9, 6)).save(tmp_path / f"v_{i:06d}.jpg")
    facts, signs = Facts(num_frames=4, width=9, height=6, ok=True), []
    assert probe(str(tmp_path), every_frame, lambda: signs.append(1)) == facts
    assert len(signs) == (4 if every_frame else 1)
    (tmp_path / "v_000003.jpg").write_text("no picture")
    os.utime(tmp_path, (1, 1))
    facts = probe(str(tmp_path), every_frame)
    assert facts.ok is not every_frame
    assert ("v_000003.jpg: cannot identify" in facts.reason) is every_frame
    (tmp_path / "v_000003.jpg").unlink()
    os.utime(tmp_path, (2, 2))
    assert "the picture after number 2 is missing" in probe(str(tmp_path), every_frame).reason


def test_damage_anywhere_is_found_and_what_is_known_is_kept(tmp_path):
    path = write_video(tmp_path / "a.mp4", FRAMES, options={"g": "10", "bf": "0", "crf": "10"})
    data = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for number in (1, 25, 49):
        begin, size = packets[number]
        broken = data.copy()
        broken[begin + 20 : begin + size] = bytes(size - 20)
        path.write_bytes(broken)
        facts = probe(str(path))
        assert not facts.ok, number
        assert (facts.codec, facts.width) == ("h264", 96) or number == 1
        assert "\n" not in facts.reason
        assert probe(str(path), every_frame=False).ok or number == 1  # packets tell nothing


@pytest.mark.parametrize("every_frame", [True, False])
def test_a_file_that_was_cut_off(tmp_path, every_frame):
    options = {"movflags": "+faststart"}
    path = write_video(tmp_path / "a.mp4", FRAMES, container_options=options)
    path.write_bytes(path.read_bytes()[:-6000])
    facts = probe(str(path), every_frame)
    assert not facts.ok
    assert facts.num_frames is None or facts.num_frames < 50


@pytest.mark.parametrize("every_frame", [True, False])
@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx")])
def test_a_matroska_file_that_was_cut_off(tmp_path, name, codec, every_frame):
    path = write_video(tmp_path / name, FRAMES[:20], codec=codec)
    data = path.read_bytes()
    facts = probe(str(path), every_frame)
    assert facts.ok, facts.reason
    path.write_bytes(data + b"more")
    assert probe(str(path), every_frame) == facts
    for size in (len(data) * 6 // 10, len(data) - 1):  # within a frame, and after the last one
        path.write_bytes(data[:size])
        reason = f"truncated: {size} of {len(data)} bytes"
        expected = facts._replace(num_frames=None, keyframe_spacing=None, ok=False, reason=reason)
        with VideoFile(path) as file:  # which reads what there is
            assert probe(str(path), every_frame) == expected._replace(duration=file.duration)
    path.write_bytes(data[:1000])
    assert not probe(str(path), every_frame).ok


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "libx264"), ("a.webm", "libvpx")])
def test_a_live_recording_does_not_tell_its_size(tmp_path, name, codec):
    live = {"live": "1"}
    path = write_video(tmp_path / name, FRAMES[:20], codec=codec, container_options=live)
    assert probe(str(path)).num_frames == 20
    path.write_bytes(path.read_bytes()[:-1000])
    facts = probe(str(path))
    assert facts.ok, facts.reason
    assert facts.num_frames < 20


def test_a_matroska_file_in_a_larger_file(tmp_path):
    data = write_video(tmp_path / "a.mkv", FRAMES[:20]).read_bytes()
    part, outer = data[: len(data) // 2], tmp_path / "outer"
    for video in (data, part):
        outer.write_bytes(b"before" + video + bytes(len(data)))
        facts = probe(ByteRange(str(outer), 6, len(video), "a.mkv"))
        reason = f"truncated: {len(part)} of {len(data)} bytes" if video is part else ""
        assert (facts.ok, facts.reason) == (not reason, reason)


def test_a_range_of_a_file_is_probed_like_a_file(tmp_path):
    path = write_video(tmp_path / "a.mp4", FRAMES)

    class Memory:
        name = "memory.mp4"

        def open(self):
            return io.BytesIO(path.read_bytes())

    assert probe(Memory()) == probe(str(path))


def test_signs_of_life_come_while_a_file_is_read(tmp_path):
    path = write_video(tmp_path / "a.mp4", FRAMES)
    signs = []
    probe(str(path), alive=lambda: signs.append(1))
    assert len(signs) >= 50


def test_and_while_its_length_is_found(tmp_path):
    # A stream without a header is read to its end to learn its duration.
    path = write_video(tmp_path / "a.ts", moving_frames(200, 96, 128), format="mpegts")
    signs = []
    with VideoFile(Watched(str(path), lambda: signs.append(1))) as file:
        opened = len(signs)
        assert file.duration == VideoFile(path).duration
    assert len(signs) - opened >= path.stat().st_size // 32768 > 1


def test_a_stamp_of_the_far_future_fits_into_64_bits(monkeypatch):
    status = SimpleNamespace(st_size=1, st_mtime_ns=2**64)
    monkeypatch.setattr(os, "stat", lambda _: status)
    assert stamp("a") == (1, 2**63 - 1)


def test_stamp(tmp_path):
    assert stamp(tmp_path / "gone") == (-1, -1)
    (tmp_path / "a").write_bytes(b"123")
    assert stamp(tmp_path / "a") == (3, (tmp_path / "a").stat().st_mtime_ns)


def broken(code):
    """A file whose bytes cannot be read: its error has this number."""

    class File(io.BytesIO):
        def read(self, size=-1):
            raise OSError(code, os.strerror(code))

    return SimpleNamespace(name="a.mp4", open=lambda: File(b"bytes"))


@pytest.mark.parametrize("code", [errno.EIO, errno.ESTALE, errno.EACCES, errno.ENOENT])
def test_what_the_storage_does_not_give_is_not_known(code):
    with pytest.raises(UnreadableVideo, match=os.strerror(code)) as error:
        probe(broken(code))
    assert error.value.is_missing == (code == errno.ENOENT)


def test_a_file_that_is_not_there_is_not_a_bad_one(tmp_path):
    for name in ("gone.mp4", "gone.jpg"):
        with pytest.raises(UnreadableVideo, match="No such file") as error:
            probe(str(tmp_path / name))
        assert pickle.loads(pickle.dumps(error.value)).is_missing


@pytest.mark.parametrize("code", [errno.EIO, errno.EPERM, errno.EACCES])
def test_ffmpeg_says_of_damaged_files_what_a_storage_says(tmp_path, code):
    (tmp_path / "a.mp4").write_bytes(b"damaged")
    error = FFmpegError(code, os.strerror(code), str(tmp_path / "a.mp4"))
    kind = UnreadableVideo if code == errno.EACCES else VideoDecodeError
    assert type(decode_error(str(tmp_path / "a.mp4"), error)) is kind
    assert type(decode_error("name/in/a/shard.mp4", error)) is kind
