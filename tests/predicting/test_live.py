"""Classes of streams: a server on this machine at a live pace, and a file in place of a camera."""

import contextlib
import ctypes
import os
import sys
import threading
import time

import numpy as np
import pytest

from datamodules.errors import VideoDecodeError
from datamodules.video.live_source import Opening, is_live, opening_of
from hiera_video.predicting.live import live_answers
from tests.lamp import CLIP, Brightness, predictor, stream_server, write_lamp

SECONDS = 4
ON = np.arange(10 * SECONDS) // 10 % 2 == 1


class Slow(Brightness):
    def forward(self, video):
        time.sleep(0.05)
        return super().forward(video)


@pytest.fixture(scope="module")
def stream(tmp_path_factory):
    return write_lamp(tmp_path_factory.mktemp("live") / "lamp.ts", ON, format="mpegts")


@pytest.fixture
def _no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.mark.usefixtures("_no_proxy")
def test_a_stream_is_answered_with_its_newest_frames(stream):
    with stream_server(stream, SECONDS) as address:
        start = time.monotonic()
        answers = list(live_answers(predictor(), address, stride=0.2))
        assert time.monotonic() - start > SECONDS / 2
    assert len(answers) >= 3
    times = [answer.time for answer in answers]
    assert times == sorted(set(times))
    assert times[-1] == pytest.approx(SECONDS - 0.1, abs=0.01)
    for answer in answers:
        assert answer.probabilities.sum() == pytest.approx(1)
        assert 0 < answer.latency < 2
        frame = round(answer.time * 10)
        if ON[max(0, frame - 1)] == ON[frame]:  # the whole window is of one kind
            assert answer.probabilities.argmax() == (0 if ON[frame] else 1)
    dropped = [answer.dropped for answer in answers]
    assert dropped == sorted(dropped)


def test_frames_are_dropped_if_the_model_is_slower_than_the_camera(stream):
    camera = Opening(str(stream), None, {})  # much faster than ten frames a second
    answers = list(live_answers(predictor(Slow()), camera, stride=0.01))
    assert answers[-1].time == pytest.approx(SECONDS - 0.1, abs=0.01)
    assert len(answers) < len(ON)
    seen = 2 * len(answers)  # a window of 0.1 s has two frames
    assert answers[-1].dropped >= len(ON) - seen - 2


def test_a_stream_shorter_than_the_window_gets_one_answer(stream):
    camera = Opening(str(stream), None, {})
    (answer,) = live_answers(predictor(), camera, stride=0.01, window=60.0)
    assert answer.time == pytest.approx(SECONDS - 0.1, abs=0.01)


def test_the_reader_ends_with_the_answers(stream):
    before = threading.active_count()
    answers = live_answers(predictor(), Opening(str(stream), None, {}))
    next(answers)
    answers.close()
    assert threading.active_count() == before


@pytest.mark.usefixtures("_no_proxy")
def test_streams_that_cannot_be_read(tmp_path):
    (tmp_path / "text.ts").write_bytes(b"no video " * 1000)
    served = stream_server(tmp_path / "text.ts", 0.1)
    with served as address, pytest.raises(VideoDecodeError, match="127.0.0.1"):
        next(live_answers(predictor(), address))
    with pytest.raises(VideoDecodeError, match="Connection refused"):
        next(live_answers(predictor(), address))


@contextlib.contextmanager
def openings_of(file):
    """A function that says whether the file was opened since (Linux's inotify, IN_OPEN)."""
    libc = ctypes.CDLL(None, use_errno=True)
    events = libc.inotify_init1(os.O_NONBLOCK)
    assert libc.inotify_add_watch(events, os.fsencode(file), 0x20) >= 0

    def was_opened():
        with contextlib.suppress(BlockingIOError):
            return bool(os.read(events, 4096))
        return False

    yield was_opened
    os.close(events)


@pytest.mark.usefixtures("_no_proxy")
@pytest.mark.skipif(sys.platform != "linux", reason="inotify is part of Linux")
def test_a_stream_opens_no_file_of_this_machine(stream, tmp_path):
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(
        f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile://{stream}\n#EXT-X-ENDLIST\n"
    )
    with stream_server(playlist, 0.1) as served, openings_of(stream) as was_opened:
        address = served.replace(".ts", ".m3u8")
        with pytest.raises(VideoDecodeError):
            next(live_answers(predictor(), address))
        assert not was_opened()
        # Without our list of protocols, FFmpeg would do so.
        options = {
            "protocol_whitelist": opening_of(address).options["protocol_whitelist"] + ",file"
        }
        with contextlib.suppress(VideoDecodeError):
            next(live_answers(predictor(), Opening(address, None, options)))
        assert was_opened()


@pytest.mark.parametrize("option", [{"stride": 0}, {"stride": -1}, {"window": 0}])
def test_options_out_of_range(option):
    with pytest.raises(ValueError, match="must be a positive number of seconds"):
        live_answers(predictor(), "camera:0", **option)


def test_a_model_of_segments_needs_a_window():
    segments = predictor(clip=CLIP._replace(sampling="segments"))
    with pytest.raises(ValueError, match="set window, in seconds"):
        live_answers(segments, "camera:0")


def test_names_of_cameras_and_streams(monkeypatch):
    for name in ("camera:0", "camera:12", "rtsp://user:word@host/a?b=c", "https://host/live.m3u8"):
        assert is_live(name)
    for name in ("camera:", "camera:x", "file.mp4", "ftp://host/a", "http://", "a http://b"):
        assert not is_live(name)
    for platform, opening in (
        ("linux", ("/dev/video3", "v4l2")),
        ("darwin", ("3:none", "avfoundation")),
    ):
        monkeypatch.setattr("sys.platform", platform)
        assert opening_of("camera:3")[:2] == opening
    assert opening_of("rtsp://host/a").options["rtsp_transport"] == "tcp"
    with pytest.raises(ValueError, match="expected camera:N"):
        opening_of("video.mp4")
