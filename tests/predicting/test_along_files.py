import csv
import json
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from datamodules.errors import DatasetError
from datamodules.video.decoding import VideoFile
from datamodules.video.playback import play
from hiera_video.predicting import along_files
from hiera_video.predicting.along import ScoredWindow
from hiera_video.predicting.along_files import (
    MOST_PARTS,
    AlongOptions,
    Timeline,
    check_along,
    predict_along,
)
from tests.lamp import CLIP, NAMES, hear, predictor, write_lamp

ON = np.arange(64) // 10 % 2 == 1  # of 6.4 s: on from 1 to 2, from 3 to 4, from 5 to 6


@pytest.fixture(scope="module")
def lamp(tmp_path_factory):
    path = tmp_path_factory.mktemp("lamp") / "lamp.mp4"
    return str(write_lamp(path, ON, size=(240, 320), codec="aac"))


@pytest.fixture(scope="module")
def written(lamp, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "new/out"
    assert predict_along(predictor(), [lamp], out, AlongOptions(0.5, top=2)) == [lamp]
    return out


def test_the_files_of_a_video(written):
    names = [f"lamp{end}" for end in (".csv", ".jsonl", ".mp4", ".png", ".segments.json")]
    assert sorted(path.name for path in written.iterdir()) == ["activitynet.json", *names]


def test_scores_over_time(written, lamp):
    with open(written / "lamp.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["start", "end", *NAMES]
    assert rows[0][:2] == ["0.000", "0.500"]
    assert rows[-1][:2] == ["6.000", "6.400"]
    lines = [json.loads(line) for line in (written / "lamp.jsonl").read_text().splitlines()]
    windows = list(predictor().along(lamp, 0.5))
    for row, line, window in zip(rows, lines, windows, strict=True):
        np.testing.assert_allclose([*map(float, row[2:])], window.probabilities, atol=1e-6)
        assert (line["video"], line["start"], line["end"]) == ("lamp", *map(float, row[:2]))
        best, second = line["predictions"]
        assert best == {
            "label": NAMES[0] if ON[int(window.start * 10)] else NAMES[1],
            "probability": pytest.approx(window.probabilities.max(), abs=1e-6),
        }
        assert second["probability"] < best["probability"]


def test_segments_in_both_forms(written):
    segments = json.loads((written / "lamp.segments.json").read_text())
    assert [(s["start"], s["end"], s["label"]) for s in segments] == [
        (i, min(i + 1, 6.4), NAMES[0 if i % 2 else 1]) for i in range(7)
    ]
    assert all(s["score"] > 0.9 for s in segments)
    other = json.loads((written / "activitynet.json").read_text())
    assert other.keys() == {"version", "results", "external_data"}
    assert other["results"] == {
        "lamp": [
            {"label": s["label"], "score": s["score"], "segment": [s["start"], s["end"]]}
            for s in segments
        ]
    }


def test_the_film_has_a_caption_and_the_sound(written, lamp):
    with VideoFile(lamp) as file, VideoFile(written / "lamp.mp4") as film:
        assert film.duration == pytest.approx(file.duration, abs=0.01)
    for shown, lit in zip(play(str(written / "lamp.mp4")), ON, strict=True):
        top, bottom = shown.picture[:100], shown.picture[200:, 20:100]
        assert (top.mean() > 128) == lit  # the picture above the caption
        assert np.median(bottom) < 60  # the plate
        assert bottom.max() > 180  # letters
    codec, first, last = hear(written / "lamp.mp4")
    assert (codec, first, last) == ("aac", pytest.approx(1, abs=0.03), pytest.approx(6, abs=0.05))


def test_the_timeline_is_a_picture(written):
    with Image.open(written / "lamp.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 1000
        pixels = np.asarray(picture.convert("RGB"))
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3)[::7].tolist()}
    assert (0x00, 0x72, 0xB2) in colours  # the first class, its segments
    assert (0xE6, 0x9F, 0x00) in colours  # the second


def test_a_timeline_keeps_peaks_and_little_else():
    timeline = Timeline()
    rng = np.random.default_rng(0)
    scores = rng.random((5 * MOST_PARTS + 3, 2))
    for i, row in enumerate(scores):
        timeline.add(ScoredWindow(i, i + 1, row))
    edges, parts = timeline.parts()
    assert MOST_PARTS / 2 <= len(parts) <= MOST_PARTS
    assert (edges[0], edges[-1]) == (0, len(scores))
    for start, end, part in zip(edges[:-1], edges[1:], parts, strict=True):
        np.testing.assert_allclose(part, scores[int(start) : int(end)].max(0), rtol=1e-6)


def test_options_count(lamp, tmp_path):
    options = AlongOptions(0.5, smoothing=3.0, threshold=0.35, min_length=1.2)
    predict_along(predictor(), [lamp], tmp_path, options)
    with open(tmp_path / "lamp.csv", newline="") as file:
        rows = np.array([[*map(float, row)] for row in list(csv.reader(file))[1:]])
    raw = np.array([window.probabilities for window in predictor().along(lamp, 0.5)])
    np.testing.assert_allclose(rows[5, 2:], raw[2:9].mean(0), atol=1e-6)
    segments = json.loads((tmp_path / "lamp.segments.json").read_text())
    assert segments
    assert all(s["end"] - s["start"] >= 1.2 for s in segments)


def test_a_video_that_fails_leaves_nothing_and_the_next_one_begins(lamp, tmp_path, caplog):
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    silent = str(write_lamp(tmp_path / "silent.mp4", ON[:20]))
    videos = [str(tmp_path / "broken.mp4"), silent, str(tmp_path / "none.mp4")]
    out = tmp_path / "out"
    caplog.set_level("INFO")
    assert predict_along(predictor(), videos, out, AlongOptions()) == [silent]
    assert {path.name.partition(".")[0] for path in out.iterdir()} == {"silent", "activitynet"}
    assert json.loads((out / "activitynet.json").read_text())["results"].keys() == {"silent"}
    for name in ("broken.mp4", "none.mp4"):
        assert name in caplog.text
    assert "silent.mp4 has no sound" in caplog.text
    predict_along(predictor(), [silent], out, AlongOptions())
    assert "holds earlier predictions, such as silent.jsonl" in caplog.text


def test_names_of_any_kind(tmp_path):
    name = '日本, "ä" \udcff.mp4'
    write_lamp(tmp_path / "a.mp4", ON[:10])
    (tmp_path / "a.mp4").rename(tmp_path / name)
    predict_along(predictor(), [str(tmp_path / name)], tmp_path / "out", AlongOptions())
    (line,) = (tmp_path / "out" / name.replace(".mp4", ".jsonl")).read_text().splitlines()
    assert json.loads(line)["video"] == name.removesuffix(".mp4")
    results = json.loads((tmp_path / "out/activitynet.json").read_text())["results"]
    assert list(results) == [name.removesuffix(".mp4")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stride": 0}, "stride must be a positive"),
        ({"stride": float("nan")}, "stride must be a positive"),
        ({"window": 0}, "window must be a positive"),
        ({"spatial": 0}, "spatial must be at least 1"),
        ({"top": 0}, "top must be at least 1"),
        ({"smoothing": -1}, "smoothing must be"),
        ({"threshold": 2}, r"threshold must be in \[0, 1\]"),
        ({"min_length": float("nan")}, "min_length must be"),
    ],
)
def test_options_out_of_range(lamp, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        predict_along(predictor(), [lamp], tmp_path / "out", AlongOptions(**options))
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_before_anything_begins(lamp, tmp_path):
    (tmp_path / "file").write_text("")
    for videos, out, message in (
        ([lamp], tmp_path / "file", "is a file; name a folder"),
        ([lamp, "elsewhere/lamp.mkv"], tmp_path / "out", "have the same name"),
        ([lamp], tmp_path.parent / lamp.rpartition("/")[0], "itself; name another folder"),
    ):
        with pytest.raises(DatasetError, match=message):
            check_along(predictor(), videos, out, AlongOptions())
    segments = predictor(clip=CLIP._replace(sampling="segments"))
    with pytest.raises(ValueError, match="set window, in seconds"):
        check_along(segments, [lamp], tmp_path / "out", AlongOptions())
    check_along(segments, [lamp], tmp_path / "out", AlongOptions(window=2.0))


class Constant(torch.nn.Module):
    def forward(self, video):
        return torch.tensor([[2.0, 1.0, 0.0]]).expand(len(video), 3)


def test_memory_does_not_grow_in_an_hour(tmp_path, monkeypatch):
    monkeypatch.setattr(along_files, "MOST_PARTS", 128)  # that the shorter video fills, too
    peaks = []
    for name, minutes in (("warm", 1), ("short", 15), ("hour", 60)):
        on, rate = np.arange(minutes * 15) % 7 < 3, Fraction(1, 4)
        path = write_lamp(tmp_path / f"{name}.mp4", on, rate, (32, 32))
        tracemalloc.start()
        predict_along(predictor(Constant()), [str(path)], tmp_path / "out", AlongOptions(5.0))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    with open(tmp_path / "out/hour.csv") as file:
        assert sum(1 for _ in file) == 721
    # The frames of the windows alone would be 9 MB; the index of packets has a few bytes a second.
    assert peaks[2] - peaks[1] < 200 * 1024, peaks
