"""Frames are compared, bit for bit, with decoding the whole file in order."""

import gc
import io
import math
import multiprocessing
import pickle
import random
import re
import shutil
import wave
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from datamodules.errors import VideoDecodeError
from datamodules.video.decoding import VideoFile
from datamodules.video.orientation import orientation
from datamodules.video.probing import probe
from datamodules.video.soundness import Soundness
from tests.video_files import moving_frames, write_video

DATA = Path(__file__).parents[4] / "shared" / "data"
REAL = sorted(p for p in DATA.glob("*/*") if p.suffix in {".mp4", ".mkv", ".webm", ".avi"})


class Reference:
    """A file decoded in order from its start: no seeking, nothing skipped.

    Frames come out of the decoder in the order of display. Their timestamps, sorted, say when each
    is displayed, where there are any. It keeps the pixels of every ``step``-th frame and of the
    last, turned for display.
    """

    def __init__(self, path: Path, step: int = 1, turn: bool = True):
        self.starts: list[Fraction] = []
        self.frames: dict[int, np.ndarray] = {}
        times = []
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            self.tick = Fraction(stream.time_base.numerator, stream.time_base.denominator)
            for i, frame in enumerate(container.decode(stream)):
                times.append(Fraction(i, 30) if frame.pts is None else frame.pts * self.tick)
                last = frame
                if len(times) % step == 0:
                    self._keep(frame, turn, i)
            self._keep(last, turn, i)
        self.starts = sorted(times)
        end = self.starts[-1] + getattr(last, "duration", 0) * self.tick
        self.duration = float(end - self.starts[0])
        self.starts = [start - self.starts[0] for start in self.starts]
        self.last = float(self.starts[-1])

    def _keep(self, frame: av.VideoFrame, turn: bool, index: int) -> None:
        rgb = frame.to_ndarray(format="rgb24")
        self.frames[index] = np.rot90(rgb, frame.rotation // 90) if turn else rgb

    def at(self, second: float) -> np.ndarray:
        slack = min(self.tick / 2, Fraction(self.duration / len(self.starts) / 20))
        reached = [i for i, s in enumerate(self.starts) if s <= Fraction(second) + slack]
        return self.frames[reached[-1] if reached else 0]

    def some_times(self, count: int, seed: int = 0) -> list[float]:
        """Times of kept frames: exactly where they start, or later while they are on display."""
        rng = random.Random(seed)
        ends = [*self.starts[1:], self.starts[-1] + 1]
        times = []
        for i in rng.choices(list(self.frames), k=count):
            start, end = float(self.starts[i]), float(ends[i])
            end -= min(float(self.tick), (end - start) / 16)
            times.append(rng.choice([start, rng.uniform(start, max(start, end))]))
        return times


reference = cache(Reference)


def check_frames(path: Path, expected: Reference, times: list[float], file: VideoFile) -> None:
    frames = file.frames_at(times)
    for second, frame in zip(times, frames, strict=True):
        assert np.array_equal(frame, expected.at(second)), f"{path.name} at {second} s"


# ---------------------------------------------------------------- all formats, bit for bit


@pytest.mark.skipif(not REAL, reason=f"no clips in {DATA}")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_clips(path: Path):
    long = path.stat().st_size > 1_000_000
    expected = Reference(path, step=20 if long else 1)
    with VideoFile(path) as file:
        check_frames(path, expected, expected.some_times(8), file)
        check_frames(path, expected, [expected.last, 1e9], file)
        assert file.duration == pytest.approx(expected.duration, abs=float(expected.tick))
        assert (file.height, file.width) == expected.at(1e9).shape[:2]
        mean = len(expected.starts) / expected.duration
        assert float(file.rate) == pytest.approx(mean, rel=0.05)


def x264(params: str) -> dict:
    return {"options": {"x264-params": f"b-adapt=0:scenecut=0:{params}"}}


def x265(params: str) -> dict:
    quiet = "log-level=none:pools=none:frame-threads=1:bframes=3"
    return {"codec": "libx265", "options": {"x265-params": f"{quiet}:{params}"}}


VP9 = {"codec": "libvpx-vp9", "options": {"g": "20", "cpu-used": "8", "lag-in-frames": "16"}}
IRREGULAR = np.cumsum(np.random.default_rng(1).integers(1, 9, 60)).tolist()

WRITTEN = {
    "gop.mp4": x264("keyint=12:bframes=3"),
    "gop.mkv": x264("keyint=12:bframes=3"),
    "gop.ts": x264("keyint=12:bframes=3"),
    "gop.flv": x264("keyint=12:bframes=3"),
    "one_gop.mp4": x264("keyint=250:bframes=5:b-pyramid=normal:ref=4"),
    "one_gop.ts": x264("keyint=250:bframes=3"),
    "intra.mp4": x264("keyint=1"),
    "open_gop.mp4": x264("keyint=12:bframes=3:open-gop=1"),
    "open_gop.mkv": x264("keyint=12:bframes=3:open-gop=1"),
    "open_gop.ts": x264("keyint=12:bframes=3:open-gop=1"),
    "open_gop_hevc.mp4": x265("keyint=12:open-gop=1"),
    "open_gop_hevc.ts": x265("keyint=12:open-gop=1"),
    "open_gop_mpeg2.ts": {"codec": "mpeg2video", "options": {"bf": "2", "g": "12"}},
    "refresh.mp4": x264("keyint=20:bframes=0:intra-refresh=1"),
    "refresh.ts": x264("keyint=20:bframes=0:intra-refresh=1"),
    "raw.h264": x264("keyint=12:bframes=3"),
    "raw.hevc": x265("keyint=12"),
    "h264_reordered.avi": x264("keyint=12:bframes=3"),
    "mpeg4.avi": {"codec": "mpeg4", "options": {"bf": "2", "g": "12"}},
    "vp9.webm": VP9,
    "vp8.webm": {"codec": "libvpx", "options": {"g": "20", "cpu-used": "8"}},
    "ffv1_10bit.mkv": {"codec": "ffv1", "pix_fmt": "yuv420p10le"},
    "h264_10bit.mp4": {"pix_fmt": "yuv420p10le", **x264("keyint=12:bframes=3")},
    "hevc_10bit.mp4": {"pix_fmt": "yuv420p10le", **x265("keyint=12")},
    "gif.gif": {"codec": "gif", "pix_fmt": "rgb8", "rate": 25},
    "rgb.mov": {"codec": "qtrle", "pix_fmt": "rgb24"},
    "late.mp4": {"start": 100, **x264("keyint=12:bframes=3")},
    "late.mkv": {"start": 100, **x264("keyint=12:bframes=3")},
    "irregular.mp4": {"pts": IRREGULAR, **x264("keyint=12:bframes=3")},
    "irregular.mkv": {"pts": IRREGULAR, **x264("keyint=12:bframes=3")},
    "edited_few.mp4": {"start": -5, **x264("keyint=12:bframes=3")},
    "edited_gop.mp4": {"start": -20, **x264("keyint=12:bframes=3:open-gop=1")},
    "edited_one_gop.mp4": {"start": -20, **x264("keyint=250:bframes=3")},
    "fragments.mp4": {
        "container_options": {"movflags": "frag_keyframe+empty_moov"},
        **x264("keyint=12:bframes=3"),
    },
    "dash.mp4": {"container_options": {"movflags": "dash"}, **x264("keyint=12:bframes=3")},
}


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory):
    """A function that writes a file of WRITTEN, once, and returns its path."""
    folder = tmp_path_factory.mktemp("videos")

    @cache
    def write(name: str) -> Path:
        return write_video(folder / name, moving_frames(60), **WRITTEN[name])

    return write


@pytest.mark.parametrize("name", WRITTEN)
def test_written_files(written, name: str):
    path = written(name)
    expected = Reference(path)
    with VideoFile(path) as file:
        for seed in range(4):  # later calls begin wherever the one before ended
            times = expected.some_times(3 if seed else 14, seed)
            check_frames(path, expected, [*times, -1.0], file)
        # Exact, but for what a header rounds (edit lists, to a millisecond) or leaves open (how
        # long the last frame of an irregular stream stays).
        tolerance = {"edited": 1e-3, "irregular": 8 / 30}.get(re.split(r"[._]", name)[0], 0)
        assert abs(file.duration - expected.duration) <= max(tolerance, expected.tick)
        check_frames(path, expected, expected.some_times(3, 9), file)  # from where that ended


def test_every_frame_one_by_one_backwards(written):
    path = written("open_gop.mp4")
    expected = reference(path)
    with VideoFile(path) as file:
        for start in reversed(expected.starts):
            check_frames(path, expected, [float(start)], file)


def test_threads_change_nothing(written):
    path = written("open_gop.mp4")
    expected = reference(path)
    with VideoFile(path, threads=3) as file:
        check_frames(path, expected, expected.some_times(30), file)


@settings(max_examples=40)
@given(data=st.data(), name=st.sampled_from(["open_gop.mp4", "one_gop.mp4", "gop.ts"]))
def test_any_times_in_any_order(written, data: st.DataObject, name: str):
    path = written(name)
    expected = reference(path)
    moment = st.floats(-1, 4) | st.sampled_from([float(s) for s in expected.starts])
    with VideoFile(path) as file:
        for times in data.draw(st.lists(st.lists(moment, max_size=6), min_size=1, max_size=3)):
            check_frames(path, expected, times, file)


def test_a_single_frame(tmp_path: Path):
    path = write_video(tmp_path / "one.mp4", moving_frames(1), rate=25)
    with VideoFile(path) as file:
        frames = file.frames_at([-5, 0, 0.02, 100])
        assert (frames == frames[0]).all()
        assert file.duration == pytest.approx(1 / 25)
        assert file.rate == 25


def test_half_a_tick_is_forgiven(written):
    with VideoFile(written("gop.mkv")) as file:  # ticks of a millisecond
        frames = file.frames_at([i / 30 for i in range(4)])
        almost, before = file.frames_at([0.0666, 0.0664])  # frame 2 starts at 0.067
        assert np.array_equal(almost, frames[2])
        assert np.array_equal(before, frames[1])


@pytest.mark.parametrize("name", ["mpeg4.avi", "gop.mp4", "gop.ts", "gop.flv", "vp9.webm"])
def test_a_frame_stays_until_the_next_one(written, name: str):
    with VideoFile(written(name)) as file:
        frames = file.frames_at([i / 30 for i in range(20)])
        for share in (0.5, 0.7, 0.9):
            assert np.array_equal(file.frames_at([(i + share) / 30 for i in range(20)]), frames)
        nearly = [i / 30 - 1e-6 for i in range(20)]  # a time that was computed
        assert np.array_equal(file.frames_at(nearly), frames)


def test_frames_with_one_timestamp(tmp_path: Path):
    """Of several frames that start together, the last is on display."""
    path, frames = tmp_path / "same.mkv", moving_frames(12)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30, options={"g": "4"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        packets = [stream.encode(av.VideoFrame.from_ndarray(f, format="rgb24")) for f in frames]
        for i, packet in enumerate(p for batch in [*packets, stream.encode(None)] for p in batch):
            packet.pts = packet.dts = i // 3 * 3
            container.mux(packet)
    with av.open(str(path)) as container:
        decoded = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    with VideoFile(path) as file:
        shown = file.frames_at([0.1, 0, 0.2, 0.3])
    assert all(np.array_equal(a, decoded[i]) for a, i in zip(shown, (5, 2, 8, 11), strict=True))


def test_a_stream_that_begins_between_keyframes(written, tmp_path: Path):
    content = written("gop.ts").read_bytes()
    path = tmp_path / "cut_start.ts"
    path.write_bytes(content[: 3 * 188] + content[30 * 188 :])
    with VideoFile(path) as file:
        assert len(file.frames_at([0, 0.5, file.duration])) == 3


# ---------------------------------------------------------------- work done


def decoded_packets(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one with each packet that goes to the decoder."""
    packets, sent = [], Soundness.sent
    monkeypatch.setattr(Soundness, "sent", lambda *args: packets.append(1) or sent(*args))
    return packets


def test_seeks_past_what_is_not_needed(written, monkeypatch: pytest.MonkeyPatch):
    with VideoFile(written("gop.mp4")) as file:
        packets = decoded_packets(monkeypatch)
        file.frames_at([49 / 30])  # the second frame of a group
        assert len(packets) <= 4 + 4
        file.frames_at([50 / 30, 51 / 30])
        file.frames_at([53 / 30, 54 / 30])
        assert len(packets) <= 4 + 4 + 6 + 6  # went on from there


def test_seeks_where_there_is_no_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "long.ts"
    write_video(path, moving_frames(300, 32, 48), **x264("keyint=60:bframes=3"))
    with VideoFile(path) as file:
        packets = decoded_packets(monkeypatch)
        for i, frame in enumerate((70, 250, 130, 190), 1):
            file.frames_at([frame / 30])
            assert len(packets) < 4 + i * (10 + 8)


@pytest.mark.parametrize("name", WRITTEN)
def test_enters_at_the_last_keyframe(written, name: str, monkeypatch: pytest.MonkeyPatch):
    one_keyframe = name.startswith(("one_gop", "edited_one_gop", "gif"))
    no_entry = name.startswith(("refresh", "h264_reordered", "raw"))  # to rely on
    with VideoFile(written(name)) as file:
        file.frames_at([file.duration])
        file.frames_at([0])
        packets = decoded_packets(monkeypatch)
        file.frames_at([file.duration])
        assert len(packets) <= (60 if one_keyframe or no_entry else 21)
        assert not no_entry or len(packets) > 50


@pytest.mark.parametrize(("name", "most"), [("noise.mkv", 0.3), ("noise.mp4", 0.2)])
def test_duration_reads_little(tmp_path: Path, name: str, most: float):
    """Of MP4, the last packets are read, in case the header ends early; of Matroska, a group."""
    frames = np.random.default_rng(0).integers(0, 256, (120, 64, 96, 3), np.uint8)
    path = write_video(tmp_path / name, frames, **x264("keyint=12:bframes=3"))
    source = Memory(path.read_bytes())
    with VideoFile(source) as file:
        file.frames_at([0])
        before = source.bytes_read
        assert file.duration == pytest.approx(4, abs=1e-3)
        assert source.bytes_read - before <= most * len(source.content)


def test_does_not_go_back_within_a_group(written, monkeypatch: pytest.MonkeyPatch):
    with VideoFile(written("one_gop.mp4")) as file:
        packets = decoded_packets(monkeypatch)
        file.frames_at([1, 0, 0.5, 1.5, 0.5])
        assert len(packets) <= 46 + 1  # one pass, and nothing after the last frame
        file.frames_at([1.6])  # goes back once, and from now on does not drain the decoder
        packets.clear()
        for second in (1.7, 1.8, 1.9):
            file.frames_at([second])
        assert len(packets) <= 14


@pytest.mark.skipif(
    not hasattr(av.video.codeccontext.VideoCodecContext, "field_order"),
    reason="this PyAV does not tell interlaced streams apart",
)
def test_skips_pictures_that_nothing_depends_on(written, tmp_path: Path):
    """So damage in them does no harm, unless they are asked for."""
    path, damaged = written("one_gop.mp4"), tmp_path / "damaged.mp4"
    content = bytearray(path.read_bytes())
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            # Four bytes are the length of a picture's data; the next says if others refer to it.
            if packet.size and not packet.is_keyframe and not bytes(packet)[4] & 0x60:
                content[packet.pos + 5 : packet.pos + packet.size] = bytes(packet.size - 5)
    damaged.write_bytes(content)
    for second in (0.5, 1.0, 1.5):
        with VideoFile(path) as file, VideoFile(damaged) as other:
            assert np.array_equal(other.frames_at([second]), file.frames_at([second]))
    decode_error(damaged, [46 / 30])


def test_several_clips_take_one_pass(written, monkeypatch: pytest.MonkeyPatch):
    clips = [([0.9, 0.3], None), ([1.5, 0.3, 1.2], (5, 3, 90, 40)), ([], None), ([0.3], None)]
    with VideoFile(written("one_gop.mp4")) as file:
        packets = decoded_packets(monkeypatch)
        for size in (None, (30, 40)):
            packets.clear()
            together = file.clips_at(clips, size)
            assert len(packets) <= 50
            for clip, (seconds, crop) in zip(together, clips, strict=True):
                with VideoFile(written("one_gop.mp4")) as other:
                    assert np.array_equal(clip, other.frames_at(seconds, size, crop))
    with VideoFile(written("gop.mp4")) as file:
        assert file.clips_at([]) == []


def test_frames_are_freed_at_once(written):
    """A reference cycle would keep them: large frames would take hundreds of megabytes."""

    def frames() -> int:
        return sum(type(thing) is av.VideoFrame for thing in gc.get_objects())

    gc.collect()
    gc.disable()
    try:
        before = frames()
        for name in ("gop.mp4", "vp9.webm"):
            with VideoFile(written(name)) as file:
                file.frames_at(np.arange(40) / 30, 32)
        assert frames() - before <= 2  # only the first of each, whose orientation was read
    finally:
        gc.enable()


# ---------------------------------------------------------------- pixels


@settings(max_examples=40)
@given(data=st.data())
def test_crop_is_a_part_of_the_frame(written, data: st.DataObject):
    x1, y1 = data.draw(st.integers(0, 95)), data.draw(st.integers(0, 63))
    x2, y2 = data.draw(st.integers(x1 + 1, 96)), data.draw(st.integers(y1 + 1, 64))
    size = data.draw(st.none() | st.integers(1, 80) | st.tuples(*[st.integers(1, 80)] * 2))
    with VideoFile(written("gop.mp4")) as file:
        whole = file.frames_at([0.5])
        part = file.frames_at([0.5], crop=(x1, y1, x2, y2))
        assert np.array_equal(part, whole[:, y1:y2, x1:x2])
        scaled = file.frames_at([0.5, 0.5], size, (x1, y1, x2, y2))
        assert np.array_equal(scaled[0], scaled[1])
        if isinstance(size, tuple):
            assert scaled.shape[1:3] == size
        elif size is not None:
            assert min(scaled.shape[1:3]) == size


@pytest.mark.parametrize("crop", [None, (21, 11, 290, 201), (40, 30, 300, 230)])
@pytest.mark.parametrize("size", [(112, 112), (75, 140), 64, (300, 421), 256])
@pytest.mark.parametrize("width", [320, 321])
def test_scaling_is_bilinear_and_antialiased(tmp_path: Path, crop, size, width: int):
    frames = moving_frames(1, 240, width)
    path = write_video(tmp_path / "v.mkv", frames, codec="ffv1", pix_fmt="yuv444p")
    with VideoFile(path) as file:
        (whole,) = file.frames_at([0], crop=crop)
        (scaled,) = file.frames_at([0], size, crop)
    height, width = scaled.shape[:2]
    pillow = Image.fromarray(whole).resize((width, height), Image.Resampling.BILINEAR)
    difference = np.abs(scaled.astype(int) - np.asarray(pillow))
    assert difference.max() <= 1


def test_short_side(tmp_path: Path):
    wide = write_video(tmp_path / "wide.mp4", moving_frames(1, 90, 160))
    tall = write_video(tmp_path / "tall.mp4", moving_frames(1, 160, 90))
    with VideoFile(wide) as file:
        assert file.frames_at([0], 45).shape == (1, 45, 80, 3)
        assert file.frames_at([0], 45, crop=(0, 0, 60, 90)).shape == (1, 68, 45, 3)
    with VideoFile(tall) as file:
        assert file.frames_at([0], 45).shape == (1, 80, 45, 3)


def flat_yuv(rgb: tuple[int, int, int], red: float, blue: float, full: bool) -> av.VideoFrame:
    """A frame of one colour in YUV, by the definition of a matrix with these weights."""
    r, g, b = (c / 255 for c in rgb)
    y = red * r + (1 - red - blue) * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    low, luma, chroma = (0, 255, 255) if full else (16, 219, 224)
    frame = av.VideoFrame(64, 48, "yuv420p")
    values = (low + luma * y, 128 + chroma * u, 128 + chroma * v)
    for plane, value in zip(frame.planes, values, strict=True):
        plane.update(bytes([round(value)]) * plane.buffer_size)
    frame.color_range = 2 if full else 1
    return frame


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize("matrix", ["bt709", "bt601", "bt470bg", "untagged"])
@pytest.mark.parametrize("size", [None, (20, 30)], ids=["", "scaled"])
def test_colours_follow_the_stream(tmp_path: Path, matrix: str, full: bool, size):
    tag = {"bt709": 1, "bt601": 6, "bt470bg": 5, "untagged": 2}[matrix]
    weights = (0.2126, 0.0722) if matrix == "bt709" else (0.299, 0.114)
    tags = {"colorspace": tag, "color_range": 2 if full else 1}
    for colour in [(200, 60, 40), (30, 180, 90), (250, 250, 250), (20, 40, 220)]:
        frame = flat_yuv(colour, *weights, full)
        frame.colorspace = tag
        options = {"qp": "1"}
        path = write_video(tmp_path / "v.mp4", [frame] * 2, options=options, tags=tags)
        with VideoFile(path) as file:
            difference = np.abs(file.frames_at([0], size).astype(int) - colour)
        assert difference.max() <= 3


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_rotation(tmp_path: Path, degrees: int):
    frames = moving_frames(5, 48, 80)
    path = write_video(tmp_path / "v.mp4", frames, rotation=degrees)
    stored = Reference(path, turn=False).frames
    with VideoFile(path) as file:
        turned = [np.rot90(frame, degrees // 90) for frame in stored.values()]
        assert np.array_equal(file.frames_at([0, 2 / 30]), [turned[0], turned[2]])
        assert (file.height, file.width) == turned[0].shape[:2]
        part = file.frames_at([0], crop=(3, 5, 41, 40))[0]
        assert np.array_equal(part, turned[0][5:40, 3:41])


def test_mirrored(tmp_path: Path):
    path = tmp_path / "v.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(0, hflip=True)
        frame = av.VideoFrame.from_ndarray(moving_frames(1)[0], format="rgb24")
        container.mux([*stream.encode(frame), *stream.encode(None)])
    with VideoFile(path) as file:
        assert np.array_equal(
            file.frames_at([0])[0], Reference(path, turn=False).frames[0][:, ::-1]
        )


# ---------------------------------------------------------------- what the caller does wrong


@pytest.mark.parametrize("second", [math.nan, math.inf, -math.inf])
def test_times_must_be_finite(written, second: float):
    with VideoFile(written("gop.mp4")) as file, pytest.raises(ValueError, match="finite"):
        file.frames_at([0, second])


def test_times_may_be_huge_or_none_at_all(written):
    for name in ("gop.mp4", "gop.mkv", "gop.ts"):
        with VideoFile(written(name)) as file:
            frames = file.frames_at([1e300, -1e300, file.duration])
            assert np.array_equal(frames[0], frames[2])
            assert file.frames_at([]).shape == (0, 64, 96, 3)
            assert file.frames_at([], 32).shape == (0, 32, 48, 3)


@pytest.mark.parametrize(
    "crop", [(-1, 0, 9, 9), (0, 0, 97, 9), (0, 0, 9, 65), (5, 5, 5, 9), (9, 9, 5, 20)]
)
def test_crop_must_lie_within_the_frame(written, crop: tuple[int, int, int, int]):
    with VideoFile(written("gop.mp4")) as file, pytest.raises(ValueError, match="crop"):
        file.frames_at([0], crop=crop)


@pytest.mark.parametrize("size", [0, -3, (0, 5), (5, -1)])
def test_size_must_be_positive(written, size):
    with VideoFile(written("gop.mp4")) as file, pytest.raises(ValueError, match="size"):
        file.frames_at([0], size)


def test_closed(written):
    with VideoFile(written("gop.mp4")) as file:
        file.frames_at([1])
    file.close()
    for use in (lambda: file.frames_at([0]), lambda: file.duration, lambda: file.width):
        with pytest.raises(ValueError, match="closed"):
            use()


# ---------------------------------------------------------------- what is wrong with the file


def decode_error(source, seconds=(0.0,)) -> VideoDecodeError:
    with pytest.raises(VideoDecodeError) as caught, VideoFile(source) as file:
        file.frames_at(seconds)
    path = source.name if isinstance(source, Memory) else str(source)
    assert caught.value.path == path
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(f"{path}: ")
    return caught.value


def test_missing_empty_folder(tmp_path: Path):
    assert "No such file" in decode_error(tmp_path / "missing.mp4").reason
    (tmp_path / "empty.mp4").touch()
    assert "empty" in decode_error(tmp_path / "empty.mp4").reason
    assert "not a file" in decode_error(tmp_path).reason


def test_not_a_video(tmp_path: Path):
    for name, content in {"a.mp4": b"hello " * 100, "b.mp4": bytes(5000)}.items():
        (tmp_path / name).write_bytes(content)
        assert "not a video" in decode_error(tmp_path / name).reason
    with wave.open(str(tmp_path / "sound.wav"), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    decode_error(tmp_path / "sound.wav")


def test_only_sound(tmp_path: Path):
    path = tmp_path / "sound.m4a"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux([*stream.encode(frame), *stream.encode(None)])
    assert "no video" in decode_error(path).reason


PLAYLISTS = {
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n{target}\n#EXT-X-ENDLIST\n",
    "list.ffconcat": "ffconcat version 1.0\nfile {target}\n",
    "list.mp4": "ffconcat version 1.0\nfile {target}\n",
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
    '<Period><AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1">'
    "<BaseURL>{target}</BaseURL></Representation></AdaptationSet></Period></MPD>",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_are_refused(written, tmp_path: Path, name: str):
    shutil.copy(written("gop.ts"), tmp_path / "target.ts")
    (tmp_path / name).write_text(PLAYLISTS[name].format(target="target.ts"))
    decode_error(tmp_path / name)
    target = tmp_path / "target.ts"
    decode_error(Memory(PLAYLISTS[name].format(target=target).encode(), str(tmp_path / name)))


@pytest.mark.parametrize(
    "name", ["ä ö 手.mp4", "a b#c?d%20e.mp4", "concat:x.mp4", "http:x.mp4", "100%d.mp4", "-y.mp4"]
)
def test_names_are_only_names(written, tmp_path: Path, monkeypatch, name: str):
    shutil.copy(written("gop.mp4"), tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path / name, name):
        with VideoFile(path) as file:
            assert file.frames_at([1]).shape == (1, 64, 96, 3)
    assert "No such file" in decode_error("concat:" + str(tmp_path / name)).reason


@pytest.mark.parametrize("clean", [True, False], ids=["between packets", "in a packet"])
def test_cut_off(tmp_path: Path, clean: bool):
    fast = {"container_options": {"movflags": "faststart"}, **x264("keyint=12:bframes=3")}
    whole = write_video(tmp_path / "whole.mp4", moving_frames(90), **fast)
    with VideoFile(whole) as file:
        expected = file.frames_at([0.5, 1.0])
    with av.open(str(whole)) as container:
        end = [p.pos for p in container.demux(video=0) if p.size][55]
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: end if clean else end + 9])
    for lost in (2.5, 2.9, 50):
        decode_error(path, [lost])
    with VideoFile(path) as file:
        for _ in range(2):
            assert np.array_equal(file.frames_at([0.5, 1.0]), expected)
            with pytest.raises(VideoDecodeError):
                file.frames_at([0.5, 2.5])


@pytest.mark.parametrize("side", [6000, 16000, 65535])
def test_a_header_that_claims_huge_frames(tmp_path: Path, side: int):
    path = write_video(tmp_path / "v.gif", moving_frames(3), codec="gif", pix_fmt="rgb8", rate=25)
    content = bytearray(path.read_bytes())
    content[6:10] = side.to_bytes(2, "little") * 2
    path.write_bytes(content)
    decode_error(path)


def test_index_cut_off(tmp_path: Path):
    whole = write_video(tmp_path / "whole.mp4", moving_frames(30))  # the index is at its end
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    assert "cut off before its index" in decode_error(path).reason


@pytest.mark.parametrize(
    ("codec", "options"),
    [("libx264", x264("keyint=12:bframes=3")["options"]), ("mpeg4", {"g": "12", "bf": "2"})],
)
def test_damage_is_told(tmp_path: Path, codec: str, options: dict[str, str]):
    """Frames that depend on damaged data are errors; all others are still right."""
    path = write_video(tmp_path / "v.mp4", moving_frames(60), codec=codec, options=options)
    intact = Reference(path, turn=False)
    with av.open(str(path)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        # If possible, one that is displayed after pictures that are decoded from it.
        i = max(range(26, 30), key=lambda i: packets[i].pts - packets[i + 1].pts)
        begin, size = packets[i].pos, packets[i].size
    content = bytearray(path.read_bytes())
    content[begin + size // 2 : begin + size] = bytes(size - size // 2)
    path.write_bytes(content)
    errors = []
    with VideoFile(path) as file:
        for i, start in enumerate(intact.starts):
            try:
                assert np.array_equal(file.frames_at([float(start)])[0], intact.frames[i])
            except VideoDecodeError:
                errors.append(i)
    assert errors
    assert set(errors) <= set(range(24, 36))  # one group of pictures
    with VideoFile(path) as file:  # the same in any order
        for i in (35, 3, errors[0], 59, errors[-1], 24):
            if i in errors:
                with pytest.raises(VideoDecodeError):
                    file.frames_at([float(intact.starts[i])])
            else:
                assert np.array_equal(
                    file.frames_at([float(intact.starts[i])])[0], intact.frames[i]
                )


def test_a_lost_beginning_is_told(tmp_path: Path):
    """Otherwise, time 0 would silently be the start of the second group of pictures."""
    path = write_video(tmp_path / "v.mkv", moving_frames(30), codec="ffv1", options={"g": "1"})
    with av.open(str(path)) as container:
        packet = next(p for p in container.demux(video=0) if p.size)
        begin = path.read_bytes().index(bytes(packet))
        content = bytearray(path.read_bytes())
        content[begin : begin + packet.size] = bytes(packet.size)
    path.write_bytes(content)
    decode_error(path)


# ---------------------------------------------------------------- sources that are no paths


class Memory:
    """A source as `container.Source` describes it; counts what is open, and what was read."""

    def __init__(self, content: bytes, name: str = "in memory", fails_at: float = math.inf):
        self.content, self.name, self.fails_at = content, name, fails_at
        self.opened: list[io.BytesIO] = []
        self.bytes_read = 0

    def open(self) -> io.BytesIO:
        source = self

        class File(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                if self.tell() >= source.fails_at:
                    raise OSError("the connection broke")
                content = super().read(size)
                source.bytes_read += len(content)
                return content

        self.opened.append(File(self.content))
        return self.opened[-1]


@pytest.mark.parametrize("name", ["gop.mp4", "gop.ts", "vp9.webm", "refresh.ts", "mpeg4.avi"])
def test_a_source_is_read_as_a_path_is(written, name: str):
    path = written(name)
    expected, source = reference(path), Memory(path.read_bytes())
    with VideoFile(source) as file, VideoFile(path) as same:
        check_frames(path, expected, expected.some_times(6), file)
        assert file.duration == same.duration
        check_frames(path, expected, expected.some_times(3, 1), file)
    assert source.opened
    assert all(file.closed for file in source.opened)


def test_a_source_that_is_no_video():
    for content, reason in {b"": "empty", b"hello " * 100: "not a video"}.items():
        source = Memory(content, "s3://bucket/a.mp4")
        assert reason in decode_error(source).reason
        assert source.opened[0].closed


def test_a_source_that_fails(written):
    content = written("gop.mkv").read_bytes()
    for fails_at in (0, 2000, len(content) // 2):
        source = Memory(content, fails_at=fails_at)
        assert "connection" in decode_error(source, [1.9]).reason
        assert all(file.closed for file in source.opened)

    class Missing(Memory):
        def open(self) -> io.BytesIO:
            raise FileNotFoundError(2, "No such file or directory")

    assert "No such file" in decode_error(Missing(b"")).reason


def test_a_source_that_gives_more_than_was_asked_for(written):
    """Such as a server that ignores ranges."""
    content = written("gop.mp4").read_bytes()

    class WithoutRanges(Memory):
        def open(self) -> io.BytesIO:
            class File(io.BytesIO):
                def read(self, size: int | None = -1) -> bytes:
                    return super().read(size) + bytes(1 << 16)

            return File(self.content)

    assert "asked for" in decode_error(WithoutRanges(content)).reason
    assert "asked for" in probe(WithoutRanges(content)).reason


def test_any_exception_is_an_error_of_the_file(written):
    content = written("gop.mp4").read_bytes()

    class Odd(Memory):
        def open(self) -> io.BytesIO:
            class File(io.BytesIO):
                def read(self, size: int | None = -1) -> bytes:
                    if self.tell():
                        raise IndexError("list index out of range")
                    return super().read(100)

            return File(self.content)

    assert "list index out of range" in decode_error(Odd(content)).reason
    assert "list index out of range" in probe(Odd(content)).reason


@pytest.mark.parametrize(("matrix", "name"), [(8, "YCgCo"), (10, "constant luminance")])
def test_colours_that_cannot_be_converted(tmp_path: Path, matrix: int, name: str):
    path = write_video(tmp_path / "a.mp4", moving_frames(2), tags={"colorspace": matrix})
    assert name in decode_error(path).reason
    assert name in probe(str(path)).reason


@pytest.mark.parametrize("degrees", [0, 90, 180, 270, -90])
def test_orientation_where_pyav_cannot_read_all_side_data(degrees: int):
    class Frame:
        rotation = degrees

        @property
        def side_data(self):
            raise ValueError("29 is not a valid Type")  # the views of MV-HEVC

    transposed, upside_down, mirrored = orientation(Frame())
    stored = moving_frames(1)[0]
    turned = stored.transpose(1, 0, 2) if transposed else stored
    turned = turned[:: -1 if upside_down else 1, :: -1 if mirrored else 1]
    assert np.array_equal(turned, np.rot90(stored, degrees // 90))


# ---------------------------------------------------------------- processes


def test_the_error_survives_pickling():
    error = pickle.loads(pickle.dumps(VideoDecodeError("a.mp4", "it is broken")))
    assert (error.path, error.reason, str(error)) == (
        "a.mp4",
        "it is broken",
        "a.mp4: it is broken",
    )
    assert str(VideoDecodeError("text of a worker's error")) == "text of a worker's error"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="lists open files through /proc")
def test_a_forgotten_file_is_closed_at_once(written):
    def open_files() -> set[Path]:
        return {p.resolve() for p in Path("/proc/self/fd").iterdir() if p.exists()}

    path = written("gop.mp4").resolve()
    gc.disable()
    try:
        file = VideoFile(path)
        file.frames_at([1])
        assert path in open_files()
        del file
        assert path not in open_files()
    finally:
        gc.enable()


def read_in_child(path: Path, queue) -> None:
    with VideoFile(path) as file:
        queue.put(file.frames_at([1.0], 32).sum())


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("closed", [True, False], ids=["closed", "open"])
def test_a_forked_process_can_read(written, closed: bool):
    path = written("gop.mp4")
    file = VideoFile(path)
    expected = file.frames_at([1.0], 32).sum()
    if closed:
        file.close()
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=read_in_child, args=(path, queue))
    child.start()
    child.join(timeout=20)
    if child.is_alive():
        child.kill()
        pytest.fail("the child hangs")
    assert child.exitcode == 0
    assert queue.get() == expected
    file.close()
