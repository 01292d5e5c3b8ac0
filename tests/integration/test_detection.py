"""Action detection through the commands: train, test, and predict on videos."""

import csv
import json

import numpy as np
import pytest

from datamodules.synthetic import write_h264
from datamodules.video.decoding import VideoFile
from hiera_video import create_detector, load
from hiera_video.weights.trained import read_trained
from tests.integration.conftest import TINY_RUN
from tests.integration.forked import run
from tests.lamp import stream_server, write_lamp

MODEL = [
    "model.input_size=[4,64,64]",
    "model.embed_dim=8",
    "model.stages=[1,1,1,1]",
    "data.size=[64,64]",
    "data.num_frames=4",
]
DATA = [
    "data.videos=[4,2,2]",
    "data.video_seconds=3",
    "data.video_size=64",
    "data.short_side=[64,72]",
    "data.batch_size=4",
]
OFFSET = 900  # second of the annotation at which the data set's files begin


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder to run in, with a trained detector in runs/fit, tested in runs/test."""
    folder = tmp_path_factory.mktemp("detection")
    words = ["--config", "demo/detect", *MODEL, *DATA, *TINY_RUN]
    output = run("fit", *words, "run_dir=runs/fit", cwd=folder)
    assert "val/mAP_official" in output
    output = run("test", *words, "run_dir=runs/test", "ckpt_path=runs/fit", cwd=folder)
    assert "test/mAP_official" in output
    return folder


def predict(*words, cwd, code=0):
    return run(
        *("predict", "--config", "demo/detect", "ckpt_path=runs/fit", *MODEL),
        *("trainer.accelerator=cpu", "min_action_score=0", *words),
        cwd=cwd,
        code=code,
    )


def rows(path):
    """Scores of a csv in AVA's form by video, second, box and action."""
    with open(path, newline="") as file:
        return {
            (row[0], int(row[1]), *(round(float(x), 4) for x in row[2:6]), int(row[6])): float(
                row[7]
            )
            for row in csv.reader(file)
        }


def test_predict_gives_the_scores_of_test(trained):
    (data,) = (trained / "data/synthetic").glob("ava-*")
    with open(next(data.rglob("person_boxes_test.csv")), newline="") as file:
        boxes = [[row[0], f"{int(row[1]) - OFFSET:04d}", *row[2:]] for row in csv.reader(file)]
    (trained / "boxes.csv").write_text("".join(",".join(row) + "\n" for row in boxes))
    names = sorted({row[0] for row in boxes})
    videos = [next(data.rglob(f"{name}.mp4")) for name in names]
    predict("boxes=boxes.csv", "out=found", *videos, cwd=trained)
    expected = {
        (video, second - OFFSET, *rest): score
        for (video, second, *rest), score in rows(trained / "runs/test/predictions.csv").items()
    }
    predicted = {}
    for name in names:
        predicted |= rows(trained / f"found/{name}.csv")
    assert len(expected) >= 2 * 2 * 8  # keyframes, shapes, actions
    assert expected.keys() <= predicted.keys()  # `test` leaves out excluded keyframes
    for key, score in expected.items():
        assert predicted[key] == pytest.approx(score, abs=1e-4)


@pytest.fixture(scope="module")
def street(trained):
    """A wide video of two seconds, in which somebody is at both ends."""
    frames = np.random.default_rng(0).integers(0, 80, (1, 72, 180, 3), np.uint8).repeat(60, 0)
    frames[:, 20:60, 5:25] = frames[:, 20:60, 150:175] = 200
    write_h264(trained / "street.mp4", frames)
    people = "street,0,0.03,0.3,0.14,0.8,,0.9\nstreet,0001,0.83,0.3,0.97,0.8,,0.9\n"
    (trained / "street.csv").write_text(people)
    return trained


def test_predict_goes_on_after_a_video_that_fails(street):
    (street / "broken.mp4").write_bytes(b"no video")
    output = predict("boxes=street.csv", "out=some", "broken.mp4", "street.mp4", cwd=street)
    assert "broken.mp4" in output
    assert "1 of 2 videos, results in some" in output
    assert sorted(p.name for p in (street / "some").iterdir()) == [
        "street.csv",
        "street.jsonl",
        "street.mp4",
    ]
    lines = [json.loads(line) for line in (street / "some/street.jsonl").read_text().splitlines()]
    assert [line["second"] for line in lines] == [0, 1]
    for line, left in zip(lines, (0.03, 0.83), strict=True):
        (person,) = line["boxes"]
        assert person["box"][0] == left
        assert len(person["actions"]) == 8
        scores = [action["score"] for action in person["actions"]]
        assert scores == sorted(scores, reverse=True)
    with VideoFile(street / "street.mp4") as file, VideoFile(street / "some/street.mp4") as drawn:
        assert drawn.duration == pytest.approx(2, abs=0.01)
        before, after = (f.frames_at([0.4, 1.2]).astype(int) for f in (file, drawn))
    changed = np.abs(before - after).max(-1) > 60
    assert changed[0, 25:58, 3:8].any()
    assert changed[1, 25:58, 147:152].any()
    assert not changed[0, 40:58, 120:].any()


def test_whole_frames_need_no_boxes(street):
    predict("boxes=full_frame", "out=whole", "street.mp4", cwd=street)
    predicted = rows(street / "whole/street.csv")
    assert {key[1:6] for key in predicted} == {(0, 0, 0, 1, 1), (1, 0, 0, 1, 1)}


def test_a_stream_of_persons_is_answered_as_it_goes_on(trained):
    ts = write_lamp(trained / "stream.ts", np.arange(60) // 10 == 1, format="mpegts")
    with stream_server(ts, seconds=6) as address:
        words = [address, "boxes=full_frame", "stride=0.2", "along.top=2"]
        output = run(
            *("predict", "--config", "demo/detect", "ckpt_path=runs/fit", *MODEL, *words),
            *("trainer.accelerator=cpu", "min_action_score=0", "out=live.jsonl"),
            cwd=trained,
            no_proxy="127.0.0.1",
        )
    answers = [json.loads(line) for line in (trained / "live.jsonl").read_text().splitlines()]
    printed = [line for line in output.splitlines() if line.endswith(" dropped")]
    assert len(printed) == len(answers) >= 2
    for answer, line in zip(answers, printed, strict=True):
        (person,) = answer["boxes"]
        assert person["box"] == [0, 0, 1, 1]
        assert len(person["actions"]) == 2
        assert f"[0.00 0.00 1.00 1.00: {person['actions'][0]['label']} 0." in line
    output = predict("camera:73", "boxes=none.csv", cwd=trained, code=2)
    assert "none.csv: no such file" in output


def test_a_run_alone_is_enough(street):
    """``predict RUN VIDEO``, `load` and an export of the run give the same scores."""
    words = ["runs/fit", "street.mp4", "boxes=full_frame", "run_dir=runs/alone"]
    run("predict", *words, "trainer.accelerator=cpu", cwd=street)
    written = rows(street / "runs/alone/predictions/street.csv")
    assert len(written) == 2 * 8  # seconds, actions
    run("export", "runs/fit", "--format", "safetensors", "--out", "exported", cwd=street)
    assert create_detector(street / "exported").roi_size == 7
    for source in ("runs/fit", "exported"):
        model = load(street / source, "cpu")
        for second, persons in model.predict(street / "street.mp4", "full_frame", top=8):
            ((box, _, actions),) = persons
            for label, score in actions:
                action_id = model.action_ids[model.class_names.index(label)]
                key = ("street", second, *box, action_id)
                assert score == pytest.approx(written.pop(key), abs=1e-5)
        assert not written
        written = rows(street / "runs/alone/predictions/street.csv")


def test_a_checkpoint_says_how_tests_use_its_model(trained):
    evaluation = read_trained(trained / "runs/fit").description.evaluation
    assert evaluation == {"short_side": None, "pad": None, "person_score": False}


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["boxes=none.csv", "street.mp4"], "none.csv: no such file; boxes= is", 2),
        (["boxes=runs/fit", "street.mp4"], "runs/fit: holds an action detector; give a run of", 2),
        (["boxes=full_frame", "out=.", "street.mp4"], "holds street.mp4 itself", 2),
        (["boxes=full_frame", "out=x", "broken2.mp4"], "none of the videos could be used", 1),
        (["boxes=full_frame", "trainer.precision=bf16-true", "street.mp4"], "round boxes", 2),
        (["boxes=full_frame", "trainer.precision=64-true", "street.mp4"], "must be 32-true or", 2),
        (["boxes=full_frame", "trainer.precision=16-mixed", "street.mp4"], "needs a GPU", 2),
        (["boxes=full_frame", "trainer.accelerator=tpu", "street.mp4"], "use auto or cpu", 2),
        (["boxes=full_frame", "min_action_score=2", "street.mp4"], "must be in [0, 1], not 2", 2),
        (["boxes=full_frame", "out=x", "a,b.mp4"], "cannot name the video 'a,b'", 2),
        (["persons.weights=none.pth", "street.mp4"], "none.pth: no such file", 2),
        (["task.init_from=hiera_base_16x224", "ckpt_path=null", "street.mp4"], "no actions", 2),
    ],
)
def test_wrong_usage_is_one_line(street, words, message, code):
    for name in ("broken2", "a,b"):
        (street / f"{name}.mp4").write_bytes(b"no video")
    output = predict(*words, cwd=street, code=code)
    assert message in output
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("hiera-video: ")


def test_report(trained):
    """The page has the average precision of each class of the run's newest test."""
    run("report", "runs/fit", cwd=trained)
    page = (trained / "runs/fit/report.html").read_text()
    results = json.loads((trained / "runs/test/results.json").read_text())
    assert f"{results['mAP@0.5IOU']:.2%}" in page
    assert all(name in page for name in results["per_class"])
    assert "Run of action detection" in page
