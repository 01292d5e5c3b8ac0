import json
import re
from contextlib import contextmanager
from pathlib import Path

import pytest

from datamodules.ava import annotations
from hiera_video import cli
from hiera_video.commands import evaluate as evaluate_command
from hiera_video.metrics import ava_matching

FIXTURE = Path(__file__).parents[1] / "metrics" / "ava_fixture"
FILES = {
    "--ground-truth": FIXTURE / "ground_truth.csv",
    "--predictions": FIXTURE / "predictions.csv",
    "--labels": FIXTURE / "actions.pbtxt",
}


def evaluate(*more, **files):
    """Exit code of the command."""
    options = FILES | {"--" + name.replace("_", "-"): path for name, path in files.items()}
    words = [str(word) for pair in options.items() for word in pair]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["hiera-video", "evaluate", "--task", "ava", *words, *more])
        try:
            cli.main()
        except SystemExit as stop:
            return stop.code
    return 0


def test_progress_in_large_files(monkeypatch, capsys):
    shown = []

    @contextmanager
    def line(name, unit):
        yield lambda done, total: shown.append((name, unit, done, total))

    monkeypatch.setattr(evaluate_command, "progress_line", line)
    assert evaluate() == 0
    assert shown == []  # of files that are read at once
    monkeypatch.setattr(annotations, "BLOCK", 100)
    assert evaluate("--json") == 0
    assert {(name, unit) for name, unit, *_ in shown} == {
        ("read ground_truth.csv", "MB"),
        ("read predictions.csv", "MB"),
    }
    assert shown[-1][2:] == (1, 1)
    assert "read" not in capsys.readouterr().out


@pytest.mark.parametrize("protocol", ["official", "pyslowfast"])
def test_the_known_answer(capsys, protocol):
    assert evaluate("--json", "--protocol", protocol) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["mAP@0.5IOU"] == pytest.approx(0.09385521885521886, rel=1e-15)
    assert summary["protocol"] == protocol
    names = [f"action{i}" for i in (1, 2, 3)]
    values = [0.170454545454, 0, 0.111111111111]
    assert summary["per_class"] == pytest.approx(dict(zip(names, values, strict=True)))
    assert summary["boxes_per_class"] == {"action1": 4, "action2": 3, "action3": 5}
    assert summary["files"]["both"] == 3
    assert evaluate("--protocol", protocol) == 0
    text = capsys.readouterr().out
    assert f"mAP@0.5IOU ({protocol} protocol) of 3 classes with ground truth: all 0.0939" in text
    assert " 0.1705        4    1  action1" in text
    assert "keyframes: 3 in the ground truth, 3 in the predictions, 3 in both" in text


def test_kinds_of_errors(capsys):
    assert evaluate("--json", "--errors") == 0
    errors = json.loads(capsys.readouterr().out)["errors"]
    for name, boxes in {"action1": 4, "action2": 3, "action3": 5}.items():
        row = errors["per_class"][name]
        assert row["missed"] <= boxes
        assert sum(row.values()) - row["missed"] <= boxes
    assert evaluate("--errors") == 0
    assert "duplicate    confusion localisation   background       missed" in (
        capsys.readouterr().out
    )
    assert evaluate("--json") == 0
    assert "errors" not in json.loads(capsys.readouterr().out)


def test_the_other_form_of_label_map(tmp_path, capsys):
    labels = tmp_path / "all.pbtxt"
    entry = 'label {{\n  name: "action{0}"\n  label_id: {0}\n  label_type: PERSON_MOVEMENT\n}}\n'
    labels.write_text("".join(map(entry.format, (1, 2, 3, 20, 70))))
    assert evaluate("--json", labels=labels) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["mAP@0.5IOU"] == pytest.approx(0.09385521885521886)
    groups = {"pose": summary["mAP@0.5IOU"], "object": None, "person": None}
    assert summary["groups"] == groups
    assert "action20" not in summary["per_class"]
    assert evaluate(labels=labels) == 0
    assert "all 0.0939, pose 0.0939, object -, person -" in capsys.readouterr().out


def test_why_there_is_nothing_to_find(tmp_path, capsys):
    predictions = tmp_path / "pred.csv"
    predictions.write_text(
        "HmR8SmNIoxu,1384,120,80,240,300,1,0.9\n"  # pixels
        "HmR8SmNIoxu,1385,0.5,0.5,0.2,0.7,1,0.9\n"
        "HmR8SmNIoxu,1384,0.2,0.1,0.5,0.7,0,0.9\n"
        "HmR8SmNIoxu.mp4,1384,0.2,0.1,0.5,0.7,1,0.9\n"
    )
    assert evaluate(predictions=predictions) == 0
    assert capsys.readouterr().out.split("\n\n")[1].splitlines() == [
        "keyframes: 3 in the ground truth, 3 in the predictions, 1 in both",
        "predictions: ids that the label map lacks, left out: 0 (1 rows)",
        "classes with ground truth and no prediction: action2, action3",
        "predicted boxes without x1 < x2 and y1 < y2, left out: 1",
        "predicted boxes that reach out of [0, 1]: 1; are they in pixels?",
        "video without predictions: 3reY9zJKhqN",
        "video without predictions: 5HNXoce1raG",
        "video without ground truth: HmR8SmNIoxu.mp4",
    ]
    predictions.write_text("HmR8SmNIoxu,1384.04,0.1,0.1,0.5,0.7,1,0.9\n")
    excluded = tmp_path / "out.csv"
    excluded.write_text("HmR8SmNIoxu.mp4,1384\n")
    assert evaluate(predictions=predictions, excluded=excluded) == 0
    first, *reasons = capsys.readouterr().out.split("\n\n")[1].splitlines()[:3]
    assert first == "keyframes: 3 in the ground truth, 1 in the predictions, 0 in both"
    assert reasons == [
        "mAP is 0: the seconds differ: seconds 1384 to 1384 in the ground truth, seconds 1384.04 "
        "to 1384.04 in the predictions",
        f"excluded: 0 of 1 keyframe in the ground truth; {excluded}",
    ]
    predictions.write_text("other,1384,0.1,0.1,0.5,0.7,1,0.9\n")
    assert evaluate(predictions=predictions) == 0
    why = "mAP is 0: no video has the same name: '3reY9zJKhqN' in the ground truth, 'other' in the"
    assert why in capsys.readouterr().out
    predictions.write_text("")
    assert evaluate("--json", predictions=predictions) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["mAP@0.5IOU"], len(summary["files"]["silent"])) == (0, 3)


def test_excluded_keyframes(tmp_path, capsys):
    excluded = tmp_path / "excluded.csv"
    excluded.write_text("3reY9zJKhqN,1774\nsomething,0902\n")
    assert evaluate("--json", excluded=excluded) == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary["boxes_per_class"] == {"action1": 2, "action2": 2, "action3": 4}
    assert summary["files"]["both"] == 2
    everything = [path.read_text() for path in (FILES["--ground-truth"], FILES["--predictions"])]
    kept = [
        "\n".join(row for row in text.split("\n") if not row.startswith("3re"))
        for text in everything
    ]
    for name, text in zip(("gt.csv", "pred.csv"), kept, strict=True):
        (tmp_path / name).write_text(text)
    files = {"ground_truth": tmp_path / "gt.csv", "predictions": tmp_path / "pred.csv"}
    assert evaluate("--json", **files) == 0
    assert json.loads(capsys.readouterr().out)["per_class"] == summary["per_class"]


def test_wrong_files(tmp_path, capsys):
    path = tmp_path / "wrong.csv"
    for name, text, message in (
        (
            "ground_truth",
            "v,0902,0.5,0.1,0.2,0.7,1,0\n",
            "row 1: the box 0.5,0.1,0.2,0.7 is empty; expected x1 < x2",
        ),
        ("ground_truth", "", "no rows; expected an AVA csv"),
        ("predictions", "v,0902,0.5,0.1,0.2,0.7,1,high\n", "row 1: score is not a number: 'high'"),
        ("excluded", "v,0902,1\n", r"row 1: expected video,second \(no header\)"),
        ("labels", "nothing", "wrong.csv"),
    ):
        path.write_text(text)
        assert evaluate(**{name: path}) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert path.name in error
        assert re.search(message, error)
    assert evaluate(predictions=tmp_path / "no.csv") == 2
    assert "no.csv: not readable" in capsys.readouterr().err


def test_wrong_words(capsys):
    assert evaluate_command.PROTOCOLS == ava_matching.PROTOCOLS
    assert evaluate("--protocol", "coco") == 2
    assert "invalid choice: 'coco'" in capsys.readouterr().err
    assert evaluate("--views", "1x1") == 2
    assert "--views" in capsys.readouterr().err
