"""The sound of a video in a new file: at the same times, copied where mp4 holds it."""

import av
import numpy as np
import pytest

from datamodules.video.decoding import VideoFile
from datamodules.video.playback import VideoWriter, play
from datamodules.video.sound import Sound
from tests.lamp import hear, write_lamp

ON = np.arange(30) // 5 == 2  # from 1.0 to 1.5 s, of 3 s


def written_again(video, path):
    with (
        VideoFile(video) as file,
        Sound(str(video)) as sound,
        VideoWriter(path, file.rate, sound=sound) as writer,
    ):
        for shown in play(str(video)):
            writer.write(shown)
    return sound.codec


@pytest.mark.parametrize(
    ("name", "codec", "layout", "kept"),
    [
        ("a.mp4", "aac", "stereo", "aac"),
        ("a.mkv", "flac", "mono", "flac"),
        ("a.mp4", "libmp3lame", "mono", "mp3"),
        ("a.ts", "aac", "stereo", "aac"),  # its packets carry headers of their own
        ("a.mkv", "pcm_s16le", "mono", "aac"),
        ("a.mkv", "mp2", "stereo", "aac"),
    ],
)
@pytest.mark.parametrize("delay", [0, 10])
def test_sound_and_picture_stay_together(tmp_path, name, codec, layout, kept, delay):
    video = write_lamp(tmp_path / name, ON, codec=codec, layout=layout, delay=delay)
    written_again(video, tmp_path / "new.mp4")
    heard, first, last = hear(tmp_path / "new.mp4")
    assert heard == kept
    assert first == pytest.approx(1.0, abs=0.03)
    assert last == pytest.approx(1.5, abs=0.05)
    lit = [shown for shown in play(str(tmp_path / "new.mp4")) if shown.picture.mean() > 128]
    assert float(lit[0].start) == pytest.approx(1.0, abs=0.001)
    assert float(lit[-1].end) == pytest.approx(1.5, abs=0.001)


def test_copied_packets_are_the_same_bytes(tmp_path):
    video = write_lamp(tmp_path / "a.mp4", ON, codec="aac")
    assert written_again(video, tmp_path / "new.mp4") == "aac"
    contents = []
    for path in (video, tmp_path / "new.mp4"):
        with av.open(str(path)) as container:
            packets = container.demux(container.streams.audio[0])
            contents.append([bytes(packet) for packet in packets if packet.size])
    assert contents[0] == contents[1]


def test_a_video_without_sound(tmp_path):
    video = write_lamp(tmp_path / "a.mp4", ON)
    assert written_again(video, tmp_path / "new.mp4") is None
    with av.open(str(tmp_path / "new.mp4")) as container:
        assert not container.streams.audio


def test_sound_that_goes_on_after_the_video_is_kept(tmp_path):
    video = write_lamp(tmp_path / "a.mkv", ON, codec="flac")
    with (
        VideoFile(video) as file,
        Sound(str(video)) as sound,
        VideoWriter(tmp_path / "new.mp4", file.rate, sound=sound) as writer,
    ):
        writer.write(next(play(str(video))))
    assert hear(tmp_path / "new.mp4")[1] == pytest.approx(1.0, abs=0.03)


def test_damaged_sound_ends_and_the_video_goes_on(tmp_path, caplog):
    video = write_lamp(tmp_path / "a.mkv", ON | True, codec="mp2")
    with av.open(str(video)) as container:
        packets = [p for p in container.demux(container.streams.audio[0]) if p.size]
        damaged = [bytes(packet) for packet in packets[40:]]
    data = video.read_bytes()
    for packet in damaged:
        data = data.replace(packet, b"\xff" * len(packet))
    video.write_bytes(data)
    written_again(video, tmp_path / "new.mp4")
    assert "its sound ends where it is damaged" in caplog.text
    assert len(list(play(str(tmp_path / "new.mp4")))) == 30
    assert hear(tmp_path / "new.mp4")[2] == pytest.approx(40 * 1152 / 44100, abs=0.1)
