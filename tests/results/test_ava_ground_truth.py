"""Training and ``evaluate`` read the same ground truth, and refuse the same files."""

import numpy as np
import pytest
import torch

from datamodules.ava.data_module import AVADataModule
from datamodules.errors import DatasetError
from hiera_video.metrics.ava import AVAMeanAveragePrecision
from hiera_video.results.ava import evaluate_files

IDS = (5, 12)
LABELS = "".join(f'item {{ name: "action {i}" id: {i} }}\n' for i in IDS)
BOX, OTHER = "0.1,0.2,0.3,0.4", "0.5,0.2,0.9,0.4"
PREDICTIONS = [f"a,902,{BOX},12,0.9", f"a,902.5,{BOX},12,0.8", f"b,1,{OTHER},5,0.7"]

# Rows, keyframes and boxes of the actions 5 and 12.
READABLE = {
    "published, with a person id": ([f"a,0902,{BOX},12,0", f"b,0001,{OTHER},5,17"], 2, [1, 1]),
    "published, without a person id": ([f"a,0902,{BOX},12", f"b,0001,{OTHER},5"], 2, [1, 1]),
    "7 and 8 columns mixed": ([f"a,0902,{BOX},12", f"a,0902,{OTHER},5,0"], 1, [1, 1]),
    "an empty eighth cell": ([f"a,0902,{BOX},12,", f"a,0902,{OTHER},5,0"], 1, [1, 1]),
    "a second with a decimal": ([f"a,902.5,{BOX},12,0", f"a,902,{BOX},12,0"], 2, [0, 2]),
    "whole seconds, written apart": (
        [f"a,902,{BOX},12,0", f"a,0902,{BOX},5,0", f"a,902.000000,{OTHER},5,1"],
        1,
        [2, 1],
    ),
    "an action with a decimal": ([f"a,902,{BOX},12.0,0", f"a,902,{OTHER},5.,0"], 1, [1, 1]),
    "a keyframe without a box": (["a,0901", f"a,0902,{BOX},12,0", "c,0003"], 3, [0, 1]),
    "blank lines, line ends of Windows": ([f"a,902,{BOX},12,0\r", "", "\r", "  "], 1, [0, 1]),
    "a byte order mark": ([f"\ufeffa,902,{BOX},12,0"], 1, [0, 1]),
    "spaces": ([f" a, 902, {BOX.replace(',', ', ')}, 12, 0", "a ,902"], 1, [0, 1]),
    "quotes": ([f'"a","0902",{BOX},"12","0"'], 1, [0, 1]),
}
WRONG = {
    "a second that is none": (f"a,two,{BOX},12,0", "second is not a number: 'two'"),
    "an action with a fraction": (f"a,902,{BOX},12.5,0", "action 12.5 is not a whole number"),
    "no action": (
        f"a,902,{BOX},,0",
        "no action id; a keyframe without persons is a row video,second",
    ),
    "action -1": (
        f"a,902,{BOX},-1,0",
        "no action id; a keyframe without persons is a row video,second",
    ),
    "a person id that is no number": (f"a,902,{BOX},12,me", "score is not a number: 'me'"),
    "an empty side": (f"a,902,,{BOX[4:]},12,0", "x1 is empty"),
    "a side that is infinite": (f"a,902,inf,{BOX[4:]},12,0", "x1 is not a finite number: inf"),
    "no video": (f",902,{BOX},12,0", "the name of the video is empty"),
    "pixels": (
        "a,902,10,20,30,40,12,0",
        "the box 10,20,30,40 is not within [0, 1]",
    ),
    "an inverted box": (
        "a,902,0.690,0.005,0.680,0.880,12,0",
        "the box 0.69,0.005,0.68,0.88 is empty; expected x1 < x2 and y1 < y2",
    ),
    "six columns": (
        f"a,902,{BOX}",
        f"expected video,second,x1,y1,x2,y2,action,score (no header), not 'a,902,{BOX}'",
    ),
}


def as_training(root):
    """Number of keyframes, boxes of each action and their average precision."""
    data = AVADataModule(root, label_map="labels.pbtxt")
    truth, _ = data.tables("val")
    metric = AVAMeanAveragePrecision(data.class_names, data.action_ids)
    metric.set_ground_truth(truth.video, truth.second, truth.boxes, truth.action, truth.score)
    names = list(dict.fromkeys([*truth.names, "a", "b"]))
    for video, second, *box, action, score in (line.split(",") for line in PREDICTIONS):
        scores = torch.full((1, len(IDS)), torch.nan)
        scores[0, IDS.index(int(action))] = float(score)
        where = torch.tensor([names.index(video)]), torch.tensor([float(second)]).double()
        metric.update(torch.tensor([[float(side) for side in box]]), scores, *where)
    results = metric.results()
    return len(metric.annotations.keys), results.boxes.tolist(), results.average_precision


def as_evaluate(root):
    """The same."""
    files = root / "ava_val_v2.2.csv", root / "predictions.csv"
    results, fit = evaluate_files(*files, {i: f"action {i}" for i in IDS})
    return fit.annotated, results.boxes.tolist(), results.average_precision


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "labels.pbtxt").write_text(LABELS)
    (tmp_path / "predictions.csv").write_text("\n".join(PREDICTIONS))
    return tmp_path


@pytest.mark.parametrize("name", READABLE)
def test_both_read_the_same(folder, name):
    rows, keyframes, boxes = READABLE[name]
    (folder / "ava_val_v2.2.csv").write_bytes("\n".join(rows).encode())
    training, evaluate = as_training(folder), as_evaluate(folder)
    assert training[:2] == evaluate[:2] == (keyframes, boxes)
    np.testing.assert_array_equal(training[2], evaluate[2])
    assert np.nansum(evaluate[2]) > 0


@pytest.mark.parametrize("name", WRONG)
def test_both_refuse_with_the_same_words(folder, name):
    row, message = WRONG[name]
    path = folder / "ava_val_v2.2.csv"
    path.write_text(f"a,1,{BOX},12,0\n\n{row}\n")
    for read in (as_training, as_evaluate):
        with pytest.raises(DatasetError) as error:
            read(folder)
        assert str(error.value) == f"{path}, row 3: {message}"


def test_an_empty_file(folder):
    (folder / "ava_val_v2.2.csv").write_text("\n")
    for read in (as_training, as_evaluate):
        with pytest.raises(DatasetError, match=r"ava_val_v2\.2\.csv: no rows; expected an AVA csv"):
            read(folder)


def test_predictions_without_a_score_are_counted(folder):
    (folder / "ava_val_v2.2.csv").write_text(f"a,902,{BOX},12,0\n")
    rows = [f"a,902,{BOX},12", f"a,902,{OTHER},12,", f"a,902,{OTHER},12,0.9", "a,902"]
    (folder / "predictions.csv").write_text("\n".join(rows))
    _, fit = evaluate_files(
        folder / "ava_val_v2.2.csv", folder / "predictions.csv", {12: "action 12"}
    )
    assert fit.unscored == 2
    assert "predicted boxes without a score, taken as 1: 2" in fit.describe()
