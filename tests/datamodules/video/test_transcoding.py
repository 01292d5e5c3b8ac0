import io
import os
from fractions import Fraction
from itertools import chain, repeat
from pathlib import Path

import av
import numpy as np
import pytest

from datamodules.errors import VideoDecodeError
from datamodules.video import transcoding
from datamodules.video.decoding import VideoFile
from datamodules.video.in_order import InOrder
from datamodules.video.probing import probe, stamp
from datamodules.video.transcoding import Encoding, peak_signal_to_noise, transcode
from tests.video_files import moving_frames, write_video

DATA = Path(__file__).parents[4] / "shared" / "data"
REAL = sorted(p for p in DATA.glob("formats/*") if p.suffix in {".mp4", ".mkv", ".webm", ".avi"})
FRAMES = moving_frames(40, 96, 160)
FINE = Encoding(short_side=96, crf=10)


def frames_of(path, size=None):
    with InOrder(str(path)) as frames:
        times = [float(frame.start * frames.time_base) for frame in frames]
    with VideoFile(path) as file:
        return file.frames_at(np.subtract(times, times[0]), size)


def starts(path):
    with InOrder(str(path)) as frames:
        seconds = [frame.start * frames.time_base for frame in frames]
    return [start - seconds[0] for start in seconds]


def check_same_pictures(source, target, least=30.0):
    new = frames_of(target)
    old = frames_of(source, new.shape[1:3])
    assert len(old) == len(new)
    assert min(map(peak_signal_to_noise, old, new)) > least


def test_the_new_file_is_what_was_asked_for(tmp_path):
    source = write_video(tmp_path / "a.mkv", FRAMES)
    before = source.read_bytes()
    with av.open(str(source)) as container:
        assert container.streams.video[0].codec_context.has_b_frames
    target = tmp_path / "b.mp4"
    facts = transcode(str(source), target, Encoding(short_side=64, gop=8, crf=18))
    assert facts == probe(str(target))
    assert (facts.width, facts.height) == (106, 64)
    assert (facts.codec, facts.num_frames, facts.keyframe_spacing) == ("h264", 40, 8)
    assert (facts.ok, facts.rotation) == (True, 0)
    check_same_pictures(source, target, 25.0)
    assert source.read_bytes() == before
    assert sorted(os.listdir(tmp_path)) == ["a.mkv", "b.mp4"]
    data = target.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(target)) as container:
        (stream,) = container.streams
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.profile != "High 4:4:4 Predictive"


def test_three_frames_in_four_can_be_skipped(tmp_path):
    source = write_video(tmp_path / "a.mp4", FRAMES[:32])
    transcode(str(source), tmp_path / "b.mp4", Encoding(gop=16))
    with av.open(str(tmp_path / "b.mp4")) as container:
        container.streams.video[0].codec_context.skip_frame = "NONREF"
        assert sum(1 for _ in container.decode(video=0)) <= 12


def test_sound_is_dropped(tmp_path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=30)
        video.width, video.height, video.pix_fmt = 160, 96, "yuv420p"
        sound = container.add_stream("aac", rate=44100)
        for frame in FRAMES[:10]:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        noise = av.AudioFrame.from_ndarray(np.zeros((1, 4410), np.float32), "fltp", "mono")
        noise.sample_rate = 44100
        container.mux(sound.encode(noise))
        container.mux(video.encode())
        container.mux(sound.encode())
    transcode(str(path), tmp_path / "b.mp4", FINE)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video"]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_picture_is_stored_as_it_is_displayed(tmp_path, degrees):
    source = write_video(tmp_path / "a.mp4", FRAMES[:8], rotation=degrees)
    facts = transcode(str(source), tmp_path / "b.mp4", FINE)
    assert (facts.width, facts.height) == ((96, 160) if degrees % 180 else (160, 96))
    assert facts.rotation == 0
    check_same_pictures(source, tmp_path / "b.mp4")


def halved(plane):
    """Every other column, between two rows: where H.264 has chroma by default."""
    return (plane[::2, ::2].astype(float) + plane[1::2, ::2]) / 2


@pytest.mark.parametrize("along", [0, 1])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_turned_picture_has_its_colour_where_it_belongs(tmp_path, degrees, along):
    ramp = (40 + 2 * np.mgrid[:80, :100][along]).astype(np.uint8)
    chroma = halved(ramp).astype(np.uint8)
    planes = np.concatenate([plane.reshape(-1, 100) for plane in (ramp, chroma, chroma)])
    frames = [av.VideoFrame.from_ndarray(planes, "yuv420p") for _ in range(2)]
    source = write_video(tmp_path / "a.mp4", frames, options={"qp": "0"}, rotation=degrees)
    transcode(str(source), tmp_path / "b.mp4", Encoding(short_side=80, crf=0))
    with av.open(str(tmp_path / "b.mp4")) as container:
        frame = next(container.decode(video=0))
    luma, u, v = np.split(frame.to_ndarray().reshape(-1), [8000, 10000])
    expected = halved(luma.reshape(frame.height, frame.width))
    across = abs(np.diff(expected[0]).mean()) > 1  # the ramp goes from left to right
    # A turned picture has chroma in the middle between columns, as the reader takes it.
    most = 0.6 if degrees and across else 0.1
    for plane in (u, v):
        levels = (plane.reshape(expected.shape) - expected)[2:-2, 2:-2].mean()
        assert abs(levels / 2) < most  # pixels


def displayed_shape(path):
    """Width by height."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return (stream.sample_aspect_ratio or 1) * Fraction(stream.width, stream.height)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
@pytest.mark.parametrize("short_side", [96, 50])  # 50: 84x50, so that pixels change their shape
@pytest.mark.parametrize("degrees", [0, 90, 180])
def test_pixels_that_are_not_square_stay_so(tmp_path, name, short_side, degrees):
    tags = {"sample_aspect_ratio": Fraction(16, 11)}
    path = tmp_path / name
    source = write_video(path, FRAMES[:4], tags=tags, rotation=degrees)
    transcode(str(source), tmp_path / "b.mp4", Encoding(short_side=short_side))
    shape = Fraction(160 * 16, 96 * 11)
    assert displayed_shape(tmp_path / "b.mp4") == (1 / shape if degrees == 90 else shape)


def test_square_pixels_stay_square(tmp_path):
    for tags in ({}, {"sample_aspect_ratio": Fraction(1)}):
        source = write_video(tmp_path / "a.mp4", FRAMES[:4], tags=tags)
        transcode(str(source), tmp_path / "b.mp4", Encoding(short_side=50))
        assert displayed_shape(tmp_path / "b.mp4") == Fraction(84, 50)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_irregular_times_stay(tmp_path, name):
    pts = np.cumsum(np.random.default_rng(0).integers(1, 9, 40)).tolist()
    source = write_video(tmp_path / name, FRAMES, pts=pts)
    transcode(str(source), tmp_path / "b.mp4", FINE)
    assert starts(tmp_path / "b.mp4") == pytest.approx(starts(source), abs=1e-6)
    check_same_pictures(source, tmp_path / "b.mp4")


@pytest.mark.parametrize("start", [-10, 25])
def test_hidden_and_late_first_frames(tmp_path, start):
    source = write_video(tmp_path / "a.mp4", FRAMES, start=start)
    facts = transcode(str(source), tmp_path / "b.mp4", FINE)
    assert facts.num_frames == 40 + min(0, start)
    check_same_pictures(source, tmp_path / "b.mp4")


@pytest.mark.parametrize(
    ("codec", "pix_fmt", "tags"),
    [
        ("libx264", "yuv420p", {"colorspace": 1, "color_range": 1}),  # BT.709
        ("libx264", "yuv420p", {"colorspace": 5, "color_range": 2}),  # full range
        ("libx264", "yuvj420p", {}),
        ("libx264", "yuv444p", {}),
        ("libx264", "yuv422p10le", {"colorspace": 9}),
        ("libx264rgb", "rgb24", {}),
        ("mpeg4", "yuv420p", {}),
        ("ffv1", "bgr0", {}),
        ("libx264", "gray", {}),
    ],
)
def test_colours_stay(tmp_path, codec, pix_fmt, tags):
    frames = (moving_frames(6, 96, 160) * [1, 0.5, 0.2]).astype(np.uint8)
    path = tmp_path / ("a.mkv" if codec == "ffv1" else "a.mp4")
    options = {} if codec in ("mpeg4", "ffv1") else {"crf": "5"}
    source = write_video(path, frames, codec=codec, pix_fmt=pix_fmt, tags=tags, options=options)
    transcode(str(source), tmp_path / "b.mp4", FINE)
    old, new = frames_of(source), frames_of(tmp_path / "b.mp4")
    mean = np.abs(old.mean((0, 1, 2)) - new.mean((0, 1, 2)))
    assert mean.max() < 2.0  # a wrong matrix or range moves whole colours
    check_same_pictures(source, tmp_path / "b.mp4", 25.0)


def test_odd_sizes_become_even_and_small_pictures_stay_small(tmp_path):
    source = write_video(
        tmp_path / "a.webm", moving_frames(6, 75, 101), codec="libvpx-vp9", pix_fmt="yuv420p"
    )
    facts = transcode(str(source), tmp_path / "b.mp4", Encoding(short_side=256))
    assert facts.width in (100, 102)
    assert facts.height in (74, 76)


@pytest.mark.skipif(not REAL, reason=f"no clips in {DATA}")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_clips(tmp_path, path):
    facts = transcode(str(path), tmp_path / "b.mp4", Encoding())
    assert facts.num_frames == probe(str(path)).num_frames
    check_same_pictures(path, tmp_path / "b.mp4", 25.0)


def test_a_range_of_a_file_is_a_source_too(tmp_path):
    path = write_video(tmp_path / "a.mp4", FRAMES[:8])

    class Memory:
        name = "memory.mp4"

        def open(self):
            return io.BytesIO(path.read_bytes())

    assert transcode(Memory(), tmp_path / "b.mp4", FINE).num_frames == 8


def test_a_damaged_source_leaves_nothing(tmp_path):
    source = write_video(tmp_path / "a.mp4", FRAMES, container_options={"movflags": "+faststart"})
    source.write_bytes(source.read_bytes()[:-3000])
    with pytest.raises(VideoDecodeError, match=r"a\.mp4"):
        transcode(str(source), tmp_path / "b.mp4", FINE)
    assert os.listdir(tmp_path) == ["a.mp4"]


class Changing:
    """A source that is another video from its fourth opening on, when it has been transcoded."""

    name = "changing.mp4"

    def __init__(self, *paths):
        before, after = (path.read_bytes() for path in paths)
        self.contents = chain([before] * 3, repeat(after))

    def open(self):
        return io.BytesIO(next(self.contents))


def test_a_file_that_turns_out_wrong_never_gets_its_name(tmp_path, monkeypatch):
    source = write_video(tmp_path / "a.mp4", FRAMES[:8])
    black = write_video(tmp_path / "black.mp4", np.zeros_like(FRAMES[:8]))
    long = write_video(tmp_path / "long.mp4", FRAMES[:12])
    target = tmp_path / "b.mp4"
    target.write_text("what was there")
    for other, fault in (
        (black, "the PSNR of a frame is only"),
        (long, r"it lasts 0\.27 s, the source 0\.40 s"),
    ):
        with pytest.raises(VideoDecodeError, match=f"changing.mp4: transcoding failed: {fault}"):
            transcode(Changing(source, other), target, FINE)
    monkeypatch.setattr(transcoding, "probe", lambda *a, **k: probe(*a, **k)._replace(num_frames=7))
    with pytest.raises(VideoDecodeError, match="transcoding failed: .* 7 of 8 frames"):
        transcode(str(source), target, FINE)
    assert target.read_text() == "what was there"
    assert sorted(os.listdir(tmp_path)) == ["a.mp4", "b.mp4", "black.mp4", "long.mp4"]


def test_a_place_that_cannot_be_written_to_is_an_os_error(tmp_path):
    source = write_video(tmp_path / "a.mp4", FRAMES[:4])
    with pytest.raises(OSError, match="No such file or directory"):
        transcode(str(source), tmp_path / "nowhere" / "b.mp4", FINE)
    assert stamp(tmp_path / "nowhere") == (-1, -1)


@pytest.mark.parametrize("wrong", [{"crf": 60}, {"gop": 0}, {"short_side": 4}])
def test_wrong_encodings(wrong):
    with pytest.raises(ValueError, match="expected at least 16, at least 1, and 0 to 51"):
        Encoding(**wrong)
