import csv
import json
import tracemalloc
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from datamodules.errors import DatasetError, VideoDecodeError
from datamodules.synthetic import write_h264
from datamodules.video.decoding import VideoFile
from datamodules.video.playback import Shown, VideoWriter, play
from hiera_video.predicting.action_files import predict_files
from hiera_video.predicting.persons import BoxFile, WholeFrame
from tests.hall import SECONDS, predictor, write_hall


@pytest.fixture(scope="module")
def hall(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hall")
    return folder, write_hall(folder)


def test_three_files_of_a_video(hall, tmp_path):
    folder, white = hall
    video, boxes = folder / "hall.mp4", BoxFile(folder / "boxes.csv")
    out = tmp_path / "new/out"
    done = predict_files(predictor(action_ids=[7, 80]), boxes, [str(video)], out)
    assert done == [str(video)]
    assert sorted(path.name for path in out.iterdir()) == ["hall.csv", "hall.jsonl", "hall.mp4"]

    with open(out / "hall.csv", newline="") as file:
        rows = list(csv.reader(file))
    assert len(rows) == (SECONDS - 1) * 3 * 2
    assert rows[0][:2] == ["hall", "0000"]
    for name, second, x1, y1, x2, y2, action, score in rows:
        person = int(float(x1) * 3)
        assert (name, float(y1), float(y2)) == ("hall", pytest.approx(0.2), pytest.approx(0.8))
        assert float(x2) == pytest.approx(person / 3 + 0.27, abs=1e-3)
        when = int(second) if action == "7" else max(0, int(second) - 1)
        assert action in ("7", "80")
        assert (float(score) > 0.5) == white[when, person]

    lines = [json.loads(line) for line in (out / "hall.jsonl").read_text().splitlines()]
    assert [line["second"] for line in lines] == list(range(SECONDS))
    assert lines[4] == {"video": "hall", "second": 4, "boxes": []}
    for person, described in enumerate(lines[7]["boxes"]):
        assert described["box"][0] == pytest.approx(person / 3 + 0.06, abs=1e-3)
        assert described["person_score"] == 0.5
        labels = {action["label"] for action in described["actions"]}
        now, before = white[7, person], white[6, person]
        assert ("bright, now" in labels) == now
        assert ("bright before" in labels) == before


def test_persons_are_drawn_for_half_a_second_before_and_after(hall, tmp_path):
    folder, _ = hall
    predict_files(predictor(), BoxFile(folder / "boxes.csv"), [str(folder / "hall.mp4")], tmp_path)
    with VideoFile(folder / "hall.mp4") as file, VideoFile(tmp_path / "hall.mp4") as drawn:
        assert drawn.duration == pytest.approx(file.duration, abs=0.01)
        assert (drawn.width, drawn.height, drawn.rate) == (216, 72, 30)
    shown = zip(play(str(folder / "hall.mp4")), play(str(tmp_path / "hall.mp4")), strict=True)
    for before, after in shown:
        assert float(after.start) == pytest.approx(float(before.start), abs=1e-3)
        changed = np.abs(before.picture.astype(int) - after.picture).max() > 60
        assert changed == (not 3.5 <= before.start < 4.5)  # nobody is there at second 4


@pytest.mark.parametrize(
    ("starts", "seconds"),
    [
        ([0, 4, 8], [0, 4, 8]),
        ([0, 1.75, 3.5, 5.25, 7], [0, 2, 4, 5, 7]),
        ([0, 0.25, 0.75, 1, 7, 7.25, 8], [0, 0, 1, 1, 7, 7, 8]),  # a long pause
    ],
)
def test_a_frame_shows_the_persons_of_the_second_nearest_to_its_start(tmp_path, starts, seconds):
    times = [Fraction(start) for start in (*starts, 10)]
    with VideoWriter(tmp_path / "slow.mp4", Fraction(1)) as writer:
        for start, end in pairwise(times):
            writer.write(Shown(np.full((48, 200, 3), 90, np.uint8), start, end))
    rows = [f"slow,{s},{s / 10 + 0.02:.2f},0.2,{s / 10 + 0.08:.2f},0.8,,1\n" for s in range(10)]
    (tmp_path / "boxes.csv").write_text("".join(rows))
    persons = BoxFile(tmp_path / "boxes.csv")
    predict_files(predictor(), persons, [str(tmp_path / "slow.mp4")], tmp_path / "out", 1)
    drawn = list(play(str(tmp_path / "out/slow.mp4")))
    assert [float(shown.start) for shown in drawn] == pytest.approx(starts, abs=1e-3)
    seconds_shown = []
    for shown in drawn:
        changed = np.abs(shown.picture.astype(int) - 90).max(-1) > 40
        seconds_shown.append({int(x) // 20 for x in np.flatnonzero(changed.any(axis=0))})
    assert seconds_shown == [{second} for second in seconds]


def test_seconds_after_the_end_are_said_once(hall, tmp_path, caplog):
    folder, _ = hall
    (tmp_path / "late.csv").write_text("hall,2,0.1,0.1,0.9,0.8,,1\nhall,902,0.1,0.1,0.9,0.8,,1\n")
    predict_files(predictor(), BoxFile(tmp_path / "late.csv"), [str(folder / "hall.mp4")], tmp_path)
    assert caplog.text.count("lie after the end") == 1


def test_what_is_wrong_before_anything_begins(hall, tmp_path):
    folder, _ = hall
    video = str(folder / "hall.mp4")
    (tmp_path / "file").write_text("")
    model, persons = predictor(), WholeFrame()
    with pytest.raises(DatasetError, match=r"out=.*file is a file; name a folder"):
        predict_files(model, persons, [video], tmp_path / "file")
    with pytest.raises(DatasetError, match=r"holds .*hall\.mp4 itself"):
        predict_files(model, persons, [video], folder)
    with pytest.raises(DatasetError, match="have the same name"):
        predict_files(model, persons, [video, "elsewhere/hall.mkv"], tmp_path / "out")
    with pytest.raises(ValueError, match="min_action_score must be in"):
        predict_files(model, persons, [video], tmp_path / "out", 80)
    for name in ("a,b", 'a"b', "a\nb", "a\udcffb"):
        with pytest.raises(DatasetError, match=r"^a csv cannot name the video 'a.*b': rename it"):
            predict_files(model, persons, [f"{name}.mp4"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_video_that_fails_leaves_nothing_and_the_next_one_begins(hall, tmp_path, caplog):
    folder, _ = hall
    data = (folder / "hall.mp4").read_bytes()
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(b"no video")
    damaged = tmp_path / "damaged.mp4"
    middle = len(data) // 2
    damaged.write_bytes(data[:middle] + bytes(2000) + data[middle + 2000 :])
    with pytest.raises(VideoDecodeError):
        list(play(str(damaged)))
    names = [str(cut), str(damaged), str(folder / "hall.mp4"), str(tmp_path / "none.mp4")]
    out = tmp_path / "out"
    done = predict_files(predictor(), WholeFrame(), names, out)
    assert done == names[2:3]
    assert {path.name for path in out.iterdir()} == {"hall.csv", "hall.jsonl", "hall.mp4"}
    for name in ("cut.mp4", "damaged.mp4", "none.mp4"):
        assert name in caplog.text


def test_memory_does_not_grow_with_the_length(tmp_path):
    frames = np.zeros((10 * 120, 64, 64, 3), np.uint8)
    frames[:, 10:20] = np.arange(len(frames))[:, None, None, None] % 255
    peaks = []
    for name, count in (("warm", 90), ("short", 600), ("long", 1200)):
        write_h264(tmp_path / f"{name}.mp4", frames[:count])
        tracemalloc.start()
        predict_files(predictor(), WholeFrame(), [str(tmp_path / f"{name}.mp4")], tmp_path / "out")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The packets' index is a few bytes a second; a second of frames is 360 KiB.
    assert peaks[2] - peaks[1] < 100 * 1024, peaks
