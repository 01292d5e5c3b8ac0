"""``predict`` along videos through the command."""

import csv
import json

import numpy as np
import pytest

from datamodules.video.decoding import VideoFile
from hiera_video import load
from tests.integration.forked import run
from tests.lamp import hear, stream_server, write_lamp

CPU = ["trainer.accelerator=cpu", "trainer.devices=1"]
ON = np.arange(30) // 10 == 1


@pytest.fixture(scope="module")
def videos(workspace):
    folder = workspace / "long"
    folder.mkdir()
    write_lamp(folder / "lamp.mp4", ON, codec="aac")
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_a_run_is_enough(workspace, finetuned, videos):
    words = [finetuned[0], videos, "stride=0.5", "along.top=2", "along.threshold=0", *CPU]
    output = run("predict", *words, "run_dir=runs/along", cwd=workspace)
    out = workspace / "runs/along/predictions"
    assert "broken.mp4" in output
    assert f"1 of 2 videos, results in {out}" in output
    ends = (".csv", ".jsonl", ".mp4", ".png", ".segments.json")
    names = ["activitynet.json", *(f"lamp{end}" for end in ends)]
    assert sorted(path.name for path in out.iterdir()) == names
    predictor = load(finetuned[0], "cpu")
    with open(out / "lamp.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["start", "end", *predictor.class_names]
    windows = list(predictor.along(videos / "lamp.mp4", 0.5))
    for row, window in zip(rows, windows, strict=True):
        assert [*map(float, row[:2])] == [window.start, window.end]
        np.testing.assert_allclose([*map(float, row[2:])], window.probabilities, atol=1e-5)
    line, *_ = map(json.loads, (out / "lamp.jsonl").read_text().splitlines())
    assert len(line["predictions"]) == 2
    segments = json.loads((out / "lamp.segments.json").read_text())
    assert {s["label"] for s in segments} == set(predictor.class_names)
    with VideoFile(out / "lamp.mp4") as film:
        assert film.duration == pytest.approx(3, abs=0.01)
    assert hear(out / "lamp.mp4")[0] == "aac"


@pytest.mark.parametrize("along", [[], ["stride=1"]])
def test_a_list_is_relative_to_itself_or_to_the_root_that_is_given(
    workspace, finetuned, videos, along
):
    name = f"listed{len(along)}"

    def predict(*words, code=0):
        return run("predict", finetuned[0], *along, *CPU, *words, cwd=workspace, code=code)

    def predicted(out):
        file = workspace / out / "lamp.jsonl" if along else workspace / out
        return [json.loads(line).get("path") for line in file.read_text().splitlines()]

    (videos / "list.txt").write_text("lamp.mp4\n")
    (workspace / "lists").mkdir(exist_ok=True)
    (workspace / "lists/list.txt").write_text("lamp.mp4\n")
    outs = [f"{name}-{i}{'' if along else '.jsonl'}" for i in range(2)]
    predict("long/list.txt", f"out={outs[0]}")
    predict("lists/list.txt", "data.root=long", f"out={outs[1]}")
    assert predicted(outs[0]) == predicted(outs[1])
    output = predict("lists/list.txt", f"out={name}-none", code=2)
    missing = f"1 of 1 video is missing in {workspace}/lists and {workspace}/data/synthetic"
    assert missing in output.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["long/lamp.mp4", "stride=0"], "stride must be a positive number", 2),
        (["long/lamp.mp4", "stride=fast"], "stride=fast: expected a number of seconds", 2),
        (["long/lamp.mp4", "stride=1", "along.window=x"], "along.window=x: expected a number", 2),
        (["long/lamp.mp4", "stride=1", "along.top=1.5"], "expected a whole number", 2),
        (["long/lamp.mp4", "stride=1", "along.threshold=2"], "threshold must be in [0, 1]", 2),
        (["long/lamp.mp4", "stride=1", "out=long"], "holds long/lamp.mp4 itself", 2),
        (["long/lamp.mp4", "stride=1", "trainer.precision=16-mixed"], "needs a GPU", 2),
        (["long/lamp.mp4", "stride=1", "trainer.devices=2"], "predictions use one device", 2),
        (["long/broken.mp4", "stride=1", "out=none"], "none of the videos could be used", 1),
    ],
)
def test_wrong_usage_is_one_line(workspace, finetuned, videos, words, message, code):
    output = run("predict", finetuned[0], *CPU, *words, cwd=workspace, code=code)
    assert message in output
    assert "Traceback" not in output
    assert output.splitlines()[-1].startswith("hiera-video: ")


def test_only_classes_and_objects_have_a_stride(workspace, pretrained, finetuned, videos):
    output = run("predict", pretrained, videos, "stride=1", *CPU, cwd=workspace, code=2)
    assert "stride=1 is for `predict` of classification or instance segmentation, or live" in output
    output = run("test", finetuned[0], "stride=1", *CPU, cwd=workspace, code=2)
    assert "stride=1 is for `predict` of classification or instance segmentation, or live" in output


def test_a_stream_is_answered_as_it_goes_on(workspace, finetuned):
    ts = write_lamp(workspace / "stream.ts", np.arange(30) // 10 == 1, format="mpegts")
    with stream_server(ts, seconds=3) as address:
        words = [finetuned[0], f"{address}?key=value", "stride=0.3", "along.top=2", *CPU]
        output = run("predict", *words, "out=live.jsonl", cwd=workspace, no_proxy="127.0.0.1")
    answers = [json.loads(line) for line in (workspace / "live.jsonl").read_text().splitlines()]
    printed = [line for line in output.splitlines() if line.endswith(" dropped")]
    assert len(printed) == len(answers) >= 2
    assert all(len(answer["predictions"]) == 2 for answer in answers)
    assert answers[-1]["time"] == pytest.approx(2.9, abs=0.01)
    assert f"{len(answers)} answers, {answers[-1]['dropped']} frames dropped" in output


@pytest.mark.parametrize(
    ("words", "message", "code"),
    [
        (["camera:73"], "camera:73: No such file or directory", 1),
        (["camera:73", "stride=0"], "stride must be a positive number", 2),
        (["camera:73", "long/lamp.mp4"], "camera:73 is live: predict it alone", 2),
        (["camera:73", "out=long/lamp.mp4"], "exists already", 2),
    ],
)
def test_live_sources_that_cannot_be_read(workspace, finetuned, videos, words, message, code):
    output = run("predict", finetuned[0], *CPU, *words, cwd=workspace, code=code)
    assert message in output
    assert "Traceback" not in output
