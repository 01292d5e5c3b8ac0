import json
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from datamodules.coco.segmentation import draw
from datamodules.errors import DatasetError
from datamodules.synthetic import write_h264
from datamodules.video.playback import play
from hiera_video.predicting.instance_files import predict_instances
from tests.white_squares import picture, predictor, write_video


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def changed(before, after):
    """Which pixels differ, bool ``(height, width)``."""
    return np.abs(before.astype(int) - after.astype(int)).max(axis=2) > 40


def test_two_files_of_a_picture(tmp_path):
    pixels = picture(80)
    Image.fromarray(pixels).save(tmp_path / "a.bmp")
    out = tmp_path / "new/out"
    done = predict_instances(predictor(), [str(tmp_path / "a.bmp")], out)
    assert done == [str(tmp_path / "a.bmp")]
    assert sorted(path.name for path in out.iterdir()) == ["a.jsonl", "a.png"]
    (line,) = lines(out / "a.jsonl")
    assert line["image"] == "a"
    (found,) = line["objects"]
    assert np.array_equal(draw(found.pop("segmentation"), 64, 128), pixels[..., 0] == 255)
    square = {"category": "square", "category_id": 7, "score": 0.9, "bbox": [80, 20, 16, 16]}
    assert found == square
    with Image.open(out / "a.png") as drawn:
        tinted = changed(pixels, np.asarray(drawn))
    assert tinted[24:32, 84:92].all()  # the mask
    assert not tinted[:, :20].any()


def test_two_files_of_a_video(tmp_path):
    video = write_video(tmp_path / "a.mp4", [10] * 15 + [None] * 15 + [100] * 15)
    out = tmp_path / "out"
    assert predict_instances(predictor(), [str(video)], out)
    found = lines(out / "a.jsonl")
    assert [len(line["objects"]) for line in found] == [1] * 15 + [0] * 15 + [1] * 15
    assert (found[20]["video"], found[20]["start"], found[20]["end"]) == ("a", 0.667, 0.7)
    assert found[44]["objects"][0]["bbox"] == pytest.approx([100, 20, 16, 16], abs=1)
    drawn = zip(play(str(video)), play(str(out / "a.mp4")), strict=True)
    tinted = [changed(before.picture, after.picture).any() for before, after in drawn]
    assert tinted == [True] * 15 + [False] * 15 + [True] * 15


def test_between_two_looks_a_frame_shows_what_was_seen_last(tmp_path):
    video = write_video(tmp_path / "a.mp4", [10] * 5 + [None] * 25 + [100] * 15)
    predict_instances(predictor(), [str(video)], tmp_path / "out", stride=0.5)
    assert [len(line["objects"]) for line in lines(tmp_path / "out/a.jsonl")] == [1, 0, 1]
    drawn = zip(play(str(video)), play(str(tmp_path / "out/a.mp4")), strict=True)
    tinted = [changed(before.picture, after.picture).any() for before, after in drawn]
    assert tinted == [True] * 15 + [False] * 15 + [True] * 15


def test_a_file_that_fails_leaves_nothing_and_the_next_one_begins(tmp_path, caplog):
    Image.fromarray(picture(40)).save(tmp_path / "good.png")
    for name in ("bad.png", "bad.mp4"):
        (tmp_path / name).write_bytes(b"nothing of that kind")
    files = [str(tmp_path / name) for name in ("bad.png", "none.jpg", "good.png")]
    out = tmp_path / "out"
    assert predict_instances(predictor(), files, out) == files[2:]
    assert predict_instances(predictor(), [str(tmp_path / "bad.mp4")], out) == []
    assert {path.name for path in out.iterdir()} == {"good.jsonl", "good.png"}
    for name in ("bad.png", "none.jpg", "bad.mp4"):
        assert name in caplog.text


def test_what_is_wrong_before_anything_begins(tmp_path):
    Image.fromarray(picture(40)).save(tmp_path / "a.png")
    (tmp_path / "file").write_text("")
    files, out = [str(tmp_path / "a.png")], tmp_path / "out"
    with pytest.raises(DatasetError, match=r"out=.*file is a file; name a folder"):
        predict_instances(predictor(), files, tmp_path / "file")
    with pytest.raises(DatasetError, match=r"holds .*a\.png itself"):
        predict_instances(predictor(), files, tmp_path)
    with pytest.raises(DatasetError, match="have the same name"):
        predict_instances(predictor(), [*files, "a.mp4"], out)
    with pytest.raises(ValueError, match="min_score must be in"):
        predict_instances(predictor(), files, out, min_score=80)
    with pytest.raises(ValueError, match="stride must be a number of seconds"):
        predict_instances(predictor(), files, out, stride=0)
    assert not out.exists()


def test_memory_does_not_grow_with_the_length(tmp_path):
    frames = np.stack([picture(20 + i % 60) for i in range(180)])
    peaks = []
    for name, count in (("warm", 10), ("short", 60), ("long", 180)):
        write_h264(tmp_path / f"{name}.mp4", frames[:count])
        tracemalloc.start()
        predict_instances(predictor(), [str(tmp_path / f"{name}.mp4")], tmp_path / "out")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The packets' index is a few bytes a frame; a frame is 24 KiB.
    assert peaks[2] - peaks[1] < 100 * 1024, peaks
