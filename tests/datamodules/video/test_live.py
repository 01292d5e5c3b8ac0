"""Frames of a stream: a file that is read in place of a camera."""

import socket
from fractions import Fraction

import av
import numpy as np
import pytest

from datamodules.errors import VideoDecodeError
from datamodules.video import live
from datamodules.video.live import LiveFrames
from datamodules.video.live_source import Opening


def write(path, times):
    """A file with a picture for each time, in thousandths of a second; each has its brightness."""
    with av.open(str(path), "w", format="flv") as container:
        stream = container.add_stream("flv", rate=Fraction(10))
        stream.width = stream.height = 32
        for number, time in enumerate(times):
            picture = np.full((32, 32, 3), 20 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")):
                packet.time_base, packet.pts, packet.dts = Fraction(1, 1000), time, time
                container.mux(packet)


@pytest.mark.parametrize(
    ("times", "numbers"),
    [
        ([0, 100, 200, 300, 400], [0, 1, 2, 3, 4]),
        ([0, 100, 200, 300, 300, 400], [0, 1, 2, 3, 5]),
        ([0, 100, 200, 300, 400, 400], [0, 1, 2, 3, 4]),
    ],
)
def test_a_frame_of_the_same_time_is_left_out(tmp_path, times, numbers):
    write(tmp_path / "a.flv", times)
    opening = Opening(str(tmp_path / "a.flv"), None, {})
    with LiveFrames("camera", opening, 10.0, lambda picture: picture) as frames:
        newest = frames.newest(np.array([0.4, 0.3, 0.2, 0.1, 0.0]))
    assert newest.time == pytest.approx(0.4)
    assert [round(picture.mean() / 20) for picture in newest.pictures] == numbers


def test_a_stream_that_sends_nothing_says_for_how_long(monkeypatch):
    monkeypatch.setattr(live, "TIMEOUT", (0.5, 0.5))
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        with (
            LiveFrames(name, Opening(name, None, {}), 1.0, lambda picture: picture) as frames,
            pytest.raises(VideoDecodeError, match=r"a\.ts: nothing came for 0\.5 seconds"),
        ):
            frames.newest(np.array([0.0]))
