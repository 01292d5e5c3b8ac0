"""Which mistakes are shown, and their clips."""

import base64
import io

import av
import numpy as np
import pytest

from hiera_video.reporting.clips import Mistake, playable, small_clip, worst_mistakes
from hiera_video.results.classification import evaluate_file
from hiera_video.results.prediction_files import PredictionFile
from tests.reporting.runs import CLASSES, write_run, write_test
from tests.video_files import moving_frames, write_video


def decoded(content):
    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        frames = [(float(f.time), f.width, f.height) for f in container.decode(stream)]
        seconds = float(stream.duration * stream.time_base)
    return stream.codec_context.name, stream.codec_context.pix_fmt, frames, seconds


def mistake(path):
    return Mistake(str(path), "walking", "running", 0.9, 0.1)


def test_a_clip_is_short_small_and_slow(tmp_path):
    frames = np.repeat(np.arange(200, dtype=np.uint8), 288 * 352 * 3).reshape(200, 288, 352, 3)
    video = write_video(tmp_path / "a.mkv", frames, 30)
    codec, layout, frames, seconds = decoded(small_clip(video))
    assert (codec, layout) == ("h264", "yuv420p")
    assert {(width, height) for _, width, height in frames} == {(294, 240)}
    assert len(frames) == 6 * 15
    assert frames[-1][0] < 6
    assert seconds == pytest.approx(6, abs=0.01)


def test_a_short_clip_stays_as_long_as_it_is(tmp_path):
    video = write_video(tmp_path / "a.mp4", moving_frames(21), 30)
    _, _, frames, seconds = decoded(small_clip(video))
    assert len(frames) == 11  # every second one
    assert (frames[0][1:], seconds) == ((96, 64), pytest.approx(0.7, abs=0.01))


def test_what_cannot_be_shown_says_why(tmp_path):
    good = write_video(tmp_path / "good.mp4", moving_frames(10))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    names = ["gone.mp4", "bad.mp4", "good.mp4", str(good)]
    shown = list(playable(map(mistake, names), [tmp_path]))
    assert [clip.problem for clip in shown] == [
        "The file is no longer there.", "The file cannot be read.", "", "",
    ]  # fmt: skip
    content = base64.b64decode(shown[2].uri.removeprefix("data:video/mp4;base64,"))
    assert decoded(content)[0] == "h264"
    *_, first, second = playable(map(mistake, names), [tmp_path], budget=len(shown[2].uri))
    assert first.uri
    assert second.problem == "Left out, so that the page does not get too large."


@pytest.mark.parametrize("first_id", [0, 1])  # a table of another program may count from 1
def test_the_surest_mistakes_come_first(tmp_path, first_id):
    run = write_run(tmp_path / "fit")
    names = [f"{i}.mp4" for i in range(6)]
    labels, predicted = [0, 0, 1, 1, 2, -1], [0, 1, 2, 2, 0, 0]
    write_test(run, tmp_path / "test", names, labels, predicted, first_id=first_id)
    file = PredictionFile(tmp_path / "test/predictions.parquet")
    worst = worst_mistakes(file, evaluate_file(file), 2)
    assert [(m.path, m.label, m.predicted) for m in worst] == [
        ("4.mp4", CLASSES[2], CLASSES[0]),
        ("3.mp4", CLASSES[1], CLASSES[2]),
    ]
    assert worst[0].probability == pytest.approx(0.72)
    assert worst[0].label_probability == pytest.approx(0.01)
