"""MP4 files that show parts of their media, as editors write them that do not encode anew."""

import random
import struct

import av
import numpy as np
import pytest

from datamodules.video.decoding import VideoFile
from datamodules.video.playback import play
from datamodules.video.probing import probe
from datamodules.video.transcoding import Encoding, transcode
from tests.video_files import write_video

RATE, FRAMES = 30, 48
# Shades that show the number of a frame.
SHADES = [np.full((64, 96, 3), 20 + 4 * i, np.uint8) for i in range(FRAMES)]
TIMESCALE = 1000  # of a movie's header, in which an edit list gives lengths


def number(picture):
    return round((picture.mean() - 20) / 4)


def boxes(data, start, end):
    while start < end:
        size, kind = struct.unpack_from(">I4s", data, start)
        yield kind, start, size
        start += size


def find(data, *kinds):
    """Start and size of a box within boxes."""
    start, end = 0, len(data)
    for kind in kinds:
        start, size = next((at, size) for k, at, size in boxes(data, start, end) if k == kind)
        start, end = start + 8, start + size
    return start - 8, size


def edit(path, parts):
    """Have an MP4 show these parts of its frames, first and one past the last, one by one."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        first = min(packet.dts for packet in container.demux(stream) if packet.dts is not None)
        tick = round(1 / (RATE * stream.time_base))
    data = path.read_bytes()
    entries = b"".join(
        struct.pack(">IiHH", (end - start) * TIMESCALE // RATE, start * tick - first, 1, 0)
        for start, end in parts
    )
    content = struct.pack(">I4sII", 16 + len(entries), b"elst", 0, len(parts)) + entries
    content = struct.pack(">I4s", 8 + len(content), b"edts") + content
    at, size = find(data, b"moov", b"trak", b"edts")
    edited = bytearray(data[:at] + content + data[at + size :])
    for outer in ((b"moov",), (b"moov", b"trak")):
        start, length = find(data, *outer)
        struct.pack_into(">I", edited, start, length + len(content) - size)
    path.write_bytes(edited)
    return str(path)


@pytest.fixture(scope="module", params=[("libx264", 0), ("libx264", 3), ("libx265", 3)])
def whole(request, tmp_path_factory):
    """A file of several GOPs, with and without pictures that are stored in another order."""
    codec, reordered = request.param
    settings = f"keyint=12:min-keyint=12:scenecut=0:bframes={reordered}"
    options = {f"{codec[3:]}-params": settings + ":log-level=error" * (codec == "libx265")}
    path = tmp_path_factory.mktemp("whole") / "a.mp4"
    return write_video(path, SHADES, rate=RATE, codec=codec, options=options)


PARTS = {
    "two, within GOPs": [(6, 18), (30, 42)],
    "two, from keyframes on": [(0, 12), (36, 48)],
    "the later one first": [(24, 36), (3, 15)],
    "the beginning": [(0, 30)],
    "the middle": [(5, 35)],
}


@pytest.mark.parametrize("name", PARTS)
def test_frames_and_times_are_those_that_are_shown(whole, tmp_path, name):
    path = tmp_path / "a.mp4"
    path.write_bytes(whole.read_bytes())
    path = edit(path, PARTS[name])
    expected = [i for start, end in PARTS[name] for i in range(start, end)]
    frames = list(play(path))
    assert [number(frame.picture) for frame in frames] == expected
    with av.open(path) as container:  # FFmpeg may leave a gap of some frames between two parts
        starts = [frame.time for frame in container.decode(video=0)]
    assert [float(frame.start) for frame in frames] == pytest.approx(starts)
    middles = [float(frame.start + frame.end) / 2 for frame in frames]
    facts = probe(path)
    assert (facts.ok, facts.num_frames) == (True, len(frames)), facts.reason
    with VideoFile(path) as file:
        assert file.duration == pytest.approx(starts[-1] + 1 / RATE, abs=0.02)
        assert [number(picture) for picture in file.frames_at(middles)] == expected
    with VideoFile(path) as file:  # at random
        for i in random.Random(0).sample(range(len(frames)), len(frames)):
            assert number(file.frames_at([middles[i]])[0]) == expected[i]
    copy = tmp_path / "copy.mp4"
    assert transcode(path, copy, Encoding(short_side=64)).num_frames == len(frames)
    assert [number(frame.picture) for frame in play(str(copy))] == expected
