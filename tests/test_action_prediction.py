import csv
import json
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clips import ClipFormat
from datamodules.decoding import VideoDecodeError, VideoFile
from datamodules.manifest_file import DatasetError
from datamodules.playback import play
from datamodules.synthetic import write_h264
from hiera_video import action_prediction
from hiera_video.action_prediction import (
    ActionPredictor,
    boxes_in_crops,
    crops_over,
    predict_files,
)
from hiera_video.persons import BoxFile, WholeFrame

CLIP = ClipFormat(num_frames=4, stride=2, fps=30, height=64, width=64)
SIDES = st.integers(32, 400)


@given(SIDES, SIDES, st.floats(0, 1), st.floats(0.01, 1))
def test_whoever_is_narrower_than_half_a_crop_is_whole_in_one(width, height, place, share):
    side = min(width, height)
    crops = crops_over(width, height, side, side)
    xs = crops[0][0] + crops[0][2], crops[0][1] + crops[0][3]
    assert abs(xs[0] - width) <= 1
    assert abs(xs[1] - height) <= 1  # the first is the centre
    long, axis = max(width, height), int(height > width)
    narrow = share * (side // 2 - 1) / long
    low, high = place * (1 - narrow), place * (1 - narrow) + narrow
    box = [low, 0, high, 1] if axis == 0 else [0, low, 1, high]
    chosen, (inside,) = boxes_in_crops(np.array([box]), crops, width, height)
    corner = np.array(crops[chosen[0]][:2])
    back = (inside.reshape(2, 2) * side + corner) / [width, height]
    assert np.allclose(back.reshape(-1), box, atol=1e-6)


def test_a_wide_box_is_cut_off_at_the_border_of_the_crop_that_holds_most_of_it():
    crops = crops_over(128, 64, 64, 64)
    assert crops == [(32, 0, 96, 64), (0, 0, 64, 64), (64, 0, 128, 64)]
    boxes = np.array([[0, 0, 1, 1], [0.5, 0, 1, 0.5], [0.05, 0.5, 0.6, 1]])
    chosen, inside = boxes_in_crops(boxes, crops, 128, 64)
    assert chosen.tolist() == [0, 2, 1]  # everything: the centre
    assert np.allclose(inside, [[0, 0, 1, 1], [0, 0, 1, 0.5], [0.1, 0.5, 1, 1]])


class Brightness:
    """Says how bright a box is, at the keyframe and at the first frame."""

    def __init__(self):
        self.clips = []

    def __call__(self, video, boxes, box_clip):
        assert video.shape[1:] == (3, 4, 64, 64)
        assert ((boxes >= 0) & (boxes <= 1)).all()
        self.clips.append(len(video))
        return brightness(video, boxes, box_clip)


def brightness(video, boxes, box_clip):
    height, width = video.shape[-2:]
    pixels = (boxes * torch.tensor([width, height, width, height])).round().int()
    logits = []
    for (x1, y1, x2, y2), clip in zip(pixels.tolist(), box_clip.tolist(), strict=True):
        inside = video[clip, :, :, y1:y2, x1:x2].mean(dim=(0, 2, 3))  # -2 black, 2.4 white
        logits.append(torch.stack([inside[2], inside[0]]) * 4)
    return torch.stack(logits)


# Each has a third of a wide frame; all change from black to white (or back) with the second.
SECONDS = 11


@pytest.fixture(scope="module")
def hall(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hall")
    rows = []
    rng = np.random.default_rng(0)
    white = rng.random((SECONDS, 3)) < 0.5
    frames = np.zeros((SECONDS * 30 - 6, 72, 216, 3), np.uint8)
    for i, frame in enumerate(frames):
        for person in range(3):
            frame[:, 72 * person : 72 * person + 72] = 230 * white[(i + 3) // 30 % SECONDS, person]
    for second in range(0, SECONDS):
        for person in range(3):
            if second != 4:
                x = person / 3
                rows.append(f"hall,{second:04d},{x + 0.06:.3f},0.2,{x + 0.27:.3f},0.8,,0.5\n")
    write_h264(folder / "hall.mp4", frames)
    (folder / "boxes.csv").write_text("".join(rows))
    return folder, white


def predictor(persons, network=None, **kwargs):
    names = ["bright, now", "bright before"]
    return ActionPredictor(network or Brightness(), names, CLIP, persons, **kwargs)


def test_each_person_is_seen_where_and_when_they_are(hall):
    folder, white = hall
    network = Brightness()
    found = list(
        predictor(BoxFile(folder / "boxes.csv"), network).moments(str(folder / "hall.mp4"))
    )
    assert [moment.second for moment in found] == list(range(SECONDS))
    for moment in found:
        if moment.second == 4:
            assert moment.scores.shape == (0, 2)
            continue
        # The change comes three frames before the second, and a clip begins four before it.
        now, before = white[moment.second], white[max(0, moment.second - 1)]
        assert np.array_equal(moment.scores > 0.5, np.stack([now, before], axis=1))
        assert ((moment.scores < 0.01) | (moment.scores > 0.99)).all()
    assert max(network.clips) <= action_prediction.CLIPS_AT_ONCE


def test_the_whole_picture_padded(hall):
    """Scaled as evaluation does it, and each clip seen once whoever is in it."""
    folder, white = hall

    def network(video, boxes, box_clip):
        assert video.shape[1:] == (3, 4, 64, 128)
        assert (box_clip.bincount() == 3).all()
        assert (video[..., 43:, :] == -2).all()  # black; the picture has 42.7 of 64 pixels
        assert video[..., :42, :].max() > 0
        assert boxes[:, 3].max() < 0.8 * 43 / 64 + 0.01
        return brightness(video, boxes, box_clip)

    boxes = BoxFile(folder / "boxes.csv")
    found = predictor(boxes, network, pad=(64, 128)).moments(str(folder / "hall.mp4"))
    for moment in found:
        if moment.second != 4:
            assert np.array_equal(moment.scores[:, 0] > 0.5, white[moment.second])


def test_a_picture_larger_than_the_crop(hall):
    """Crops then lie over both sides."""
    folder, white = hall
    boxes = BoxFile(folder / "boxes.csv")
    found = predictor(boxes, short_side=80).moments(str(folder / "hall.mp4"))
    for moment in found:
        if moment.second != 4:
            assert np.array_equal(moment.scores[:, 0] > 0.5, white[moment.second])
    crops = crops_over(80, 240, 64, 64)
    assert crops[0] == (8, 88, 72, 152)
    assert len(crops) == len(set(crops)) == 3 * 7


def test_results_depend_neither_on_chunks_nor_on_batches(hall, monkeypatch):
    folder, _ = hall
    boxes = BoxFile(folder / "boxes.csv")
    first = list(predictor(boxes).moments(str(folder / "hall.mp4")))
    monkeypatch.setattr(action_prediction, "SECONDS_AT_ONCE", 1)
    monkeypatch.setattr(action_prediction, "CLIPS_AT_ONCE", 1)
    second = list(predictor(boxes).moments(str(folder / "hall.mp4")))
    for one, other in zip(first, second, strict=True):
        assert one.second == other.second
        assert np.allclose(one.scores, other.scores, atol=1e-6)


def test_scores_times_those_of_the_person(hall):
    folder, _ = hall
    boxes, video = BoxFile(folder / "boxes.csv"), str(folder / "hall.mp4")
    plain = next(predictor(boxes).moments(video)).scores
    times = next(predictor(boxes, times_person_score=True).moments(video)).scores
    assert np.allclose(times, plain * 0.5)


def test_three_files_of_a_video(hall, tmp_path):
    folder, white = hall
    video, boxes = folder / "hall.mp4", BoxFile(folder / "boxes.csv")
    out = tmp_path / "new/out"
    done = predict_files(predictor(boxes, action_ids=[7, 80]), [str(video)], out)
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
    predict_files(predictor(BoxFile(folder / "boxes.csv")), [str(folder / "hall.mp4")], tmp_path)
    with VideoFile(folder / "hall.mp4") as file, VideoFile(tmp_path / "hall.mp4") as drawn:
        assert drawn.duration == pytest.approx(file.duration, abs=0.01)
        assert (drawn.width, drawn.height, drawn.rate) == (216, 72, 30)
    shown = zip(play(str(folder / "hall.mp4")), play(str(tmp_path / "hall.mp4")), strict=True)
    for before, after in shown:
        assert float(after.start) == pytest.approx(float(before.start), abs=1e-3)
        changed = np.abs(before.picture.astype(int) - after.picture).max() > 60
        assert changed == (not 3.5 <= before.start < 4.5)  # nobody is there at second 4


def test_what_is_wrong_before_anything_begins(hall, tmp_path):
    folder, _ = hall
    video = str(folder / "hall.mp4")
    (tmp_path / "file").write_text("")
    model = predictor(WholeFrame())
    with pytest.raises(DatasetError, match=r"out=.*file is a file; name a folder"):
        predict_files(model, [video], tmp_path / "file")
    with pytest.raises(DatasetError, match=r"holds .*hall\.mp4 itself"):
        predict_files(model, [video], folder)
    with pytest.raises(DatasetError, match="have one name"):
        predict_files(model, [video, "elsewhere/hall.mkv"], tmp_path / "out")
    with pytest.raises(ValueError, match="min_action_score must be in"):
        predict_files(model, [video], tmp_path / "out", 80)
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
    done = predict_files(predictor(WholeFrame()), names, out)
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
        predict_files(predictor(WholeFrame()), [str(tmp_path / f"{name}.mp4")], tmp_path / "out")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The packets' index is a few bytes a second; a second of frames is 360 KiB.
    assert peaks[2] - peaks[1] < 100 * 1024, peaks
