import os
from fractions import Fraction

import av
import numpy as np
import pytest

from datamodules.errors import VideoDecodeError
from datamodules.synthetic import write_h264
from datamodules.video.decoding import VideoFile
from datamodules.video.playback import Shown, VideoWriter, play, play_every


def pictures(count, height=48, width=64):
    """Coloured fields, with another brightness in each picture."""
    frames = np.zeros((count, height, width, 3), np.uint8)
    frames[:, :, : width // 3] = 220, 30, 30
    frames[:, :, width // 3 : width // 2] = 20, 200, 40
    frames[:, :, width // 2 :] = (10 * np.arange(count) % 250)[:, None, None, None]
    return frames


def test_play_gives_every_frame_once_with_its_time(tmp_path):
    write_h264(tmp_path / "a.mp4", pictures(20))
    with VideoFile(tmp_path / "a.mp4") as file:
        expected = file.frames_at(np.arange(20) / 30)
    played = list(play(str(tmp_path / "a.mp4")))
    assert np.array_equal([shown.picture for shown in played], expected)
    assert [shown.start for shown in played] == [Fraction(i, 30) for i in range(20)]
    assert [shown.end for shown in played] == [Fraction(i + 1, 30) for i in range(20)]


@pytest.mark.parametrize(
    ("seconds", "first"),
    [(0.1, [0, 3, 6, 9, 12, 15, 18]), (0.15, [0, 5, 9, 14, 18]), (0.01, range(20)), (9, [0])],
)
def test_the_first_frame_of_each_part(tmp_path, seconds, first):
    write_h264(tmp_path / "a.mp4", pictures(20))
    played = list(play(str(tmp_path / "a.mp4")))
    parts = list(play_every(str(tmp_path / "a.mp4"), seconds))
    assert [shown.start for shown in parts] == [played[i].start for i in first]
    assert [shown.end for shown in parts] == [*(p.start for p in parts[1:]), played[-1].end]
    assert np.array_equal(parts[-1].picture, played[[*first][-1]].picture)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (47, 63), (2, 1)])
def test_written_frames_keep_times_and_colours(tmp_path, height, width):
    starts = [Fraction(0), Fraction(1, 24), Fraction(1, 10), Fraction(1, 3), Fraction(7, 10)]
    ends = [*starts[1:], Fraction(1)]
    frames = pictures(5, height, width)
    path = tmp_path / "new.mp4"
    with VideoWriter(path, Fraction(24000, 1001)) as writer:
        for shown in map(Shown, frames, starts, ends):
            writer.write(shown)
    played = list(play(str(path)))
    assert [float(shown.start) for shown in played] == pytest.approx(
        [*map(float, starts)], abs=1e-4
    )
    assert float(played[-1].end) == pytest.approx(1, abs=1e-4)
    for shown, frame in zip(played, frames, strict=True):
        assert shown.picture.shape == (height + height % 2, width + width % 2, 3)
        if width > 8:  # chroma is halved, so colours hold away from edges
            for x in (width // 8, width - 8):
                expected = frame[height // 2, x].astype(int)
                assert np.abs(shown.picture[height // 2, x] - expected).max() < 8
    with av.open(str(path)) as container:
        codec = container.streams.video[0].codec_context
        assert (codec.name, codec.pix_fmt) == ("h264", "yuv420p")
        assert (codec.colorspace, codec.color_range) == (1, 1)  # BT.709, limited
        assert not container.streams.audio


def test_a_damaged_file_gives_what_comes_before_the_damage(tmp_path):
    rng = np.random.default_rng(0)
    write_h264(tmp_path / "a.mp4", rng.integers(0, 255, (60, 64, 64, 3), np.uint8))
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    data[len(data) // 2 : len(data) // 2 + 4000] = bytes(4000)
    (tmp_path / "a.mp4").write_bytes(data)
    frames, seen = play(str(tmp_path / "a.mp4")), []
    with pytest.raises(VideoDecodeError):
        seen.extend(frames)
    assert 0 < len(seen) < 60


def test_where_a_file_cannot_be_written(tmp_path):
    shown = Shown(pictures(1)[0], Fraction(0), Fraction(1))
    path = tmp_path / "nowhere/a.mp4"
    with (
        pytest.raises(OSError, match="No such file") as error,
        VideoWriter(path, Fraction(30)) as w,
    ):
        w.write(shown)
    assert error.value.filename == str(path)


def test_an_error_in_between_is_the_one_that_is_raised(tmp_path):
    with pytest.raises(KeyError), VideoWriter(tmp_path / "a.mp4", Fraction(30)):
        raise KeyError


class Silenced:
    """Sound that fails when the pictures have ended."""

    def add_to(self, container):
        """Nothing."""

    def packets(self, until):
        if until is None:
            raise av.error.InvalidDataError(1, "no sound")
        return ()


def test_a_file_is_closed_whatever_fails(tmp_path):
    path = tmp_path / "a.mp4"
    with (
        pytest.raises(OSError, match="no sound") as error,
        VideoWriter(path, Fraction(30), sound=Silenced()) as writer,
    ):
        writer.write(Shown(pictures(1)[0], Fraction(0), Fraction(1)))
    assert error.value.filename == str(path)  # the error is kept, and with it the writer
    open_files = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert str(path.resolve()) not in open_files
    assert len(list(play(str(path)))) == 1
