"""All frames of a file, in the order of display: in one pass, by random access, and counted."""

import os
import random
import sys
from collections.abc import Callable
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import numpy as np
import pytest

from datamodules.video.decoding import VideoFile
from datamodules.video.in_order import InOrder
from datamodules.video.probing import probe
from datamodules.video.transcoding import Encoding, transcode
from tests.video_files import encode, moving_frames, write_video

DATA = Path(__file__).parents[4] / "shared" / "data"
RATE = 25
X264 = {"options": {"x264-params": "keyint=10:bframes=3:b-adapt=0:b-pyramid=normal:open-gop=1"}}
MPEG2 = {"codec": "mpeg2video", "options": {"bf": "2", "g": "8"}}

CODECS = {
    "mpeg1": {"codec": "mpeg1video", "options": {"bf": "2", "g": "8"}},
    "mpeg2": MPEG2,
    "mpeg4": {"codec": "mpeg4", "options": {"bf": "2", "g": "8"}},
    "h264": X264,
    "hevc": {
        "codec": "libx265",
        "options": {"x265-params": "log-level=none:pools=none:frame-threads=1:keyint=10:bframes=3"},
    },
    "vp8": {"codec": "libvpx", "options": {"cpu-used": "8", "g": "10", "lag-in-frames": "16"}},
    "vp9": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "g": "10", "lag-in-frames": "16"}},
    "av1": {"codec": "libsvtav1", "options": {"preset": "12", "g": "10"}},
    "wmv2": {"codec": "wmv2"},
}
CONTAINERS = {
    "avi": "mpeg1 mpeg2 mpeg4 h264 vp8 vp9 av1 wmv2",
    "mp4": "mpeg1 mpeg2 mpeg4 h264 hevc vp9 av1",
    "mov": "mpeg1 mpeg2 mpeg4 h264 hevc",
    "3gp": "mpeg4 h264",
    "mkv": "mpeg1 mpeg2 mpeg4 h264 hevc vp8 vp9 av1",
    "ts": "mpeg1 mpeg2 mpeg4 h264 hevc",
    "m2ts": "h264",
    "mpg": "mpeg1 mpeg2 mpeg4 h264 hevc",
    "vob": "mpeg2",
    "mxf": "mpeg2 h264",
    "flv": "h264 hevc vp9 av1",
    "asf": "mpeg1 mpeg2 mpeg4 h264 vp8 vp9 av1 wmv2",
    "nut": "mpeg1 mpeg2 mpeg4 h264 hevc vp8 vp9 av1 wmv2",
    "ogv": "vp8",
    "webm": "vp8 vp9 av1",
}
FILES = [f"{codec}.{suffix}" for suffix, codecs in CONTAINERS.items() for codec in codecs.split()]
Write = Callable[[str], Path]


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Write:
    """A function that writes the file ``codec.suffix``, once, and returns its path."""
    folder = tmp_path_factory.mktemp("order")

    @cache
    def write(name: str) -> Path:
        how = CODECS[name.partition(".")[0]]
        return write_video(folder / name, moving_frames(24, 48, 64), rate=RATE, **how)

    return write


def decoded(path: Path) -> list[np.ndarray]:
    """All frames, in the order in which PyAV's decoder returns them."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def check_all_frames(path: Path, expected: list[np.ndarray], num_accesses: int = 12) -> list[float]:
    """One pass, random access and `probe` agree with ``expected``; return when frames start."""
    with InOrder(str(path)) as frames:
        passed, starts, ends = [], [], []
        for frame, start, end in frames:
            passed.append(frame.to_ndarray(format="rgb24"))
            starts.append(float(start * frames.time_base))
            ends.append(float(end * frames.time_base))
    assert len(passed) == len(expected)
    assert all(map(np.array_equal, passed, expected))
    starts, ends = np.subtract(starts, starts[0]), np.subtract(ends, starts[0])
    order = random.Random(0).sample(range(len(expected)), min(num_accesses, len(expected)))
    with VideoFile(path) as file:  # frames one by one
        for i in order:
            for second in (starts[i], 0.1 * starts[i] + 0.9 * ends[i]):
                assert np.array_equal(file.frames_at([second])[0], expected[i]), (i, second)
    with VideoFile(path) as file:  # and all at once, in any order
        order = random.Random(1).sample(range(len(expected)), len(expected))
        shown = file.frames_at(starts[order])
        assert all(np.array_equal(shown[k], expected[i]) for k, i in enumerate(order))
        assert file.duration > starts[-1]
    facts = probe(str(path))
    assert (facts.num_frames, facts.ok, facts.reason) == (len(expected), True, "")
    return starts.tolist()


@pytest.mark.parametrize("name", FILES)
def test_every_container_and_codec(written: Write, name: str):
    path = written(name)
    expected = decoded(path)
    assert len(expected) == 24
    starts = check_all_frames(path, expected)
    if name == "mpeg1.avi":  # FFmpeg takes the first frame for one tick earlier than it is
        starts = [max(0, start - 1 / RATE) for start in starts]
    assert starts == pytest.approx(np.arange(24) / RATE, abs=1e-3)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such policies")
def test_an_encoder_does_not_make_later_tests_real_time_ones(tmp_path: Path) -> None:
    write_video(tmp_path / "a.mkv", moving_frames(3, 48, 64), rate=RATE, **CODECS["av1"])
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_frame_of_longer_files(tmp_path: Path, name: str):
    how = CODECS[name.partition(".")[0]]
    path = write_video(tmp_path / name, moving_frames(200, 48, 64), rate=RATE, **how)
    check_all_frames(path, decoded(path), 200)


# Counted by FFmpeg's own decoder.
REAL = {
    "formats/xvid_packed.avi": 60,
    "real/RATRACE_wave_f_nm_np1_fr_goo_37.avi": 72,
    "real/SchoolRulesHowTheyHelpUs_wave_f_nm_np1_ba_med_0.avi": 74,
    "real/R6llTwEh07w.mp4": 303,
    "real/SOX5yA1l24A.mp4": 332,
    "real/v_SoccerJuggling_g23_c01.avi": 240,
    "real/bikes.mp4": 250,
}


@pytest.mark.skipif(not DATA.exists(), reason=f"no folder {DATA}")
@pytest.mark.parametrize(("name", "num_frames"), REAL.items())
def test_real_files(name: str, num_frames: int):
    expected = decoded(DATA / name)
    assert len(expected) == num_frames
    check_all_frames(DATA / name, expected)


def write_packed(path: Path, count: int) -> list[np.ndarray]:
    """Write MPEG-4 with packed B-frames, as DivX and XviD do; return its frames, by PyAV.

    Each B-frame is in the packet of the frame that is decoded before it, and a packet with a
    picture of no content follows.
    """
    plain = write_video(
        path.with_suffix(".mkv"),
        moving_frames(count),
        rate=RATE,
        codec="mpeg4",
        options={"bf": "1", "g": "9", "b_strategy": "0", "sc_threshold": "1000000000"},
    )
    with av.open(str(plain)) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        header = bytes(stream.codec_context.extradata)
    mark = b"\0\0\1\xb2DivX503b1393p"
    no_content = bytes([0, 0, 1, 0xB6, 0x50, 0x4F])
    parts: list[tuple[bytes, bool]] = []
    for packet, following in zip(packets, [*packets[1:], None], strict=True):
        if packet.pts < packet.dts or (parts and packet.pts == packet.dts):
            parts.append((no_content, False))  # its content is in the part before
            continue
        content = bytes(packet)
        if packet.is_keyframe and not content.startswith(b"\0\0\1\xb0"):
            content = header + mark + content
        if following is not None and following.pts < packet.pts:
            content += bytes(following)
        parts.append((content, packet.is_keyframe))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for i, (content, is_keyframe) in enumerate(parts):
            packet = av.Packet(content)
            packet.stream, packet.time_base = stream, Fraction(1, RATE)
            packet.pts = packet.dts = i
            packet.is_keyframe = is_keyframe
            container.mux(packet)
    return decoded(plain)


@pytest.mark.parametrize("count", [2, 5, 80])
def test_packed_b_frames(tmp_path: Path, count: int):
    expected = write_packed(tmp_path / "a.avi", count)
    starts = check_all_frames(tmp_path / "a.avi", expected)
    assert starts == pytest.approx(np.arange(count) / RATE)


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 40])
def test_decoding_times_after_times_of_display(tmp_path: Path, suffix: str, count: int):
    path = write_video(
        tmp_path / f"a.{suffix}",
        moving_frames(count),
        rate=RATE,
        options={"x264-params": "b-adapt=0:bframes=3:b-pyramid=normal"},
        container_options={"movflags": "negative_cts_offsets"},
    )
    expected = decoded(path)
    check_all_frames(path, expected)
    for i in range(count):  # each by the first access to a file
        with VideoFile(path) as file:
            assert np.array_equal(file.frames_at([i / RATE])[0], expected[i])


IRREGULAR = {
    "last is late": [*range(40), 80],
    "late in the end": [*range(20), 60, 61, 62, 90, 91],
    "pause at the start": [0, *range(30, 61)],
    "few frames": [0, 10, 11, 12, 40],
    "pauses": [0, 1, 2, 3, 4, 30, 31, 32, 33, 60],
}


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "flv"])
@pytest.mark.parametrize("times", IRREGULAR.values(), ids=IRREGULAR)
def test_the_end_of_irregular_files(tmp_path: Path, times: list[int], suffix: str):
    path = write_video(
        tmp_path / f"a.{suffix}", moving_frames(len(times)), rate=RATE, pts=times, **X264
    )
    expected = decoded(path)
    starts = check_all_frames(path, expected)
    assert starts == pytest.approx(np.subtract(times, times[0]) / RATE, abs=1e-3)
    with VideoFile(path) as file:
        duration = file.duration
        assert np.array_equal(file.frames_at([duration - 1e-3])[0], expected[-1])
    facts = transcode(str(path), tmp_path / "b.mp4", Encoding(short_side=64))
    assert facts.num_frames == len(times)
    assert facts.duration == pytest.approx(duration, abs=2 * duration / len(times))
    with InOrder(str(tmp_path / "b.mp4")) as frames:
        new = [float(frame.start * frames.time_base) for frame in frames]
    assert np.subtract(new, new[0]) == pytest.approx(starts, abs=1e-3)


@pytest.mark.parametrize("later", [0, 3000], ids=["starts again", "jumps ahead"])
@pytest.mark.parametrize(
    ("suffix", "how"), [("ts", X264), ("m2ts", X264), ("ts", MPEG2), ("mpg", MPEG2)]
)
def test_joined_streams(tmp_path: Path, suffix: str, how: dict, later: int):
    parts = [tmp_path / f"{name}.{suffix}" for name in "ab"]
    write_video(parts[0], moving_frames(30, seed=1), rate=RATE, **how)
    write_video(parts[1], moving_frames(30, seed=2), rate=RATE, start=later, **how)
    path = tmp_path / f"joined.{suffix}"
    path.write_bytes(b"".join(part.read_bytes() for part in [*parts, parts[0]]))
    a, b = map(decoded, parts)
    starts = check_all_frames(path, [*a, *b, *a], 90)
    assert starts == pytest.approx(np.arange(90) / RATE, abs=1e-3)
    with VideoFile(path) as file:
        assert file.duration == pytest.approx(90 / RATE, abs=1e-3)


@pytest.mark.parametrize(("suffix", "how"), [("ts", X264), ("ts", MPEG2), ("mpg", MPEG2)])
def test_timestamps_that_wrap(tmp_path: Path, suffix: str, how: dict):
    one_second_before = int((2**33 / 90_000 - 1) * RATE)  # 33 bits count 1/90000 s
    path = tmp_path / f"a.{suffix}"
    write_video(path, moving_frames(60), rate=RATE, start=one_second_before, **how)
    starts = check_all_frames(path, decoded(path), 60)
    assert starts == pytest.approx(np.arange(60) / RATE, abs=1e-3)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi", "nut", "flv", "ts"])
def test_titles_that_are_not_utf_8(tmp_path: Path, suffix: str):
    path = tmp_path / f"a.{suffix}"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for owner in (container, stream):
            owner.metadata.update(dict.fromkeys(("title", "service_name"), "A TITLE"))
        stream.codec_context.time_base = Fraction(1, RATE)
        for packet in encode(moving_frames(5), stream):
            container.mux(packet)
    expected, content = decoded(path), path.read_bytes()
    assert b"A TITLE" in content
    path.write_bytes(content.replace(b"A TITLE", b"\xc0\xff TITL"))
    check_all_frames(path, expected)


def test_sound_that_begins_late(tmp_path: Path):
    """PyAV stumbles over a stream that it did not see when it opened the file."""
    path = tmp_path / "a.mpg"
    noise = np.random.default_rng(0).integers(0, 255, (70, 240, 320, 3), np.uint8)
    plain = np.repeat(np.arange(10, dtype=np.uint8), 240 * 320 * 3).reshape(10, 240, 320, 3)
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg2video", rate=RATE, options={"qmin": "1", "qmax": "1"})
        video.width, video.height, video.pix_fmt = 320, 240, "yuv420p"
        video.codec_context.time_base = Fraction(1, RATE)
        video.bit_rate = 80_000_000
        sound = container.add_stream("mp2", rate=48000)
        for packet in encode([*noise, *plain], video):
            container.mux(packet)
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 2304), np.int16), "s16", "stereo")
        silence.sample_rate, silence.pts, silence.time_base = 48000, 150_000, Fraction(1, 48000)
        container.mux([*sound.encode(silence), *sound.encode(None)])
    assert path.stat().st_size > 5_000_000  # else the sound is seen at once
    with av.open(str(path)) as container:
        assert not container.streams.audio
    facts = probe(str(path))
    assert (facts.ok, facts.num_frames) == (True, 80)
    with VideoFile(path) as file:
        assert file.duration == pytest.approx(80 / RATE)
        assert file.frames_at([79 / RATE])[0].mean() < 20
