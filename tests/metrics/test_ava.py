import math
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video.metrics import ava_matching
from hiera_video.metrics.ava import AVAMeanAveragePrecision
from hiera_video.metrics.ava_boxes import decimal_boxes
from hiera_video.metrics.ava_results import AVAResults
from hiera_video.results.ava import evaluate_files
from hiera_video.results.ava_csv import write_ava_csv
from tests.metrics.processes import joined
from tests.metrics.slow_ava_reference import average_precisions

IDS = (1, 2, 3, 5)
LABELS = {i: f"action {i}" for i in IDS}
PROTOCOLS = ("official", "pyslowfast")
NAN = math.nan
SQUARE = (0.2, 0.2, 0.6, 0.6)


def write(path, rows):
    path.write_text("".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def evaluate(folder, truth, rows, protocol="official", excluded=None):
    files = [write(folder / "gt.csv", truth), write(folder / "pred.csv", rows)]
    out = None if excluded is None else write(folder / "excluded.csv", excluded)
    return evaluate_files(*files, LABELS, out, protocol)


def agrees_with_reference(folder, truth, rows, protocol, excluded=()):
    results, _ = evaluate(folder, truth, rows, protocol, excluded)
    expected = average_precisions(truth, rows, IDS, protocol, excluded)
    np.testing.assert_allclose(results.average_precision, expected, rtol=0, atol=1e-12)
    return results.average_precision


def row(score, box=SQUARE, action=1, second="0902", video="v"):
    return (video, second, *box, action, score)


BOX = row(0)  # person 0
LEFT, RIGHT = (0, 0.25, 0.5, 0.75), (0.25, 0.25, 0.75, 0.75)
MIDDLE = (0.125, 0.25, 0.625, 0.75)
ANOTHER = ("v", "0903", *SQUARE, 2, 0)
OFF = (0.7, 0.7, 0.9, 0.9)

# Ground truth, predictions, and the average precision of action 1 by both protocols.
EDGES = {
    "exact": ([BOX], [row(0.5)], 1, 1),
    "no detection": ([BOX], [row(0.5, action=2)], 0, 0),
    "no prediction at all": ([BOX], [], 0, 0),
    "no ground truth": ([ANOTHER], [row(0.5)], NAN, NAN),
    "rows outside the map": ([BOX, row(0, action=77)], [row(0.9, action=77), row(0.5)], 1, 1),
    "a keyframe without ground truth": ([BOX], [row(0.9, second="0950"), row(0.5)], 1, 0.5),
    "a keyframe without boxes": (
        [BOX, ("v", "0950")],
        [row(0.9, second="0950"), row(0.5)],
        0.5,
        0.5,
    ),
    "a keyframe with boxes of unknown ids": (
        [BOX, row(0, action=77, second="0950")],
        [row(0.9, second="0950"), row(0.5)],
        0.5,
        0.5,
    ),
    "predictions of two columns": ([BOX], [("v", "0902"), row(0.5)], 1, 1),
    "predictions without a score": ([BOX], [row(0.5, OFF), row(0)[:-1]], 1, 1),
    "inverted boxes": ([BOX], [row(0.9, (0.6, 0.2, 0.2, 0.6)), row(0.5)], 1, 1),
    "boxes without area": ([BOX], [row(0.9, (0.2, 0.2, 0.2, 0.6)), row(0.5)], 1, 1),
    "inverted boxes take places": (
        [BOX],
        [*[row(0.9, (0.6, 0.2, 0.2, 0.6))] * 50, row(0.5)],
        0,
        1,
    ),
    "row 50": ([BOX], [*[row(0.9, OFF, action=2)] * 49, row(0.5)], 1, 1),
    "row 51": ([BOX], [*[row(0.9, OFF, action=2)] * 50, row(0.5)], 0, 1),
    "row 51 of unknown ids": ([BOX], [*[row(0.9, OFF, action=77)] * 50, row(0.5)], 1, 1),
    "equal scores at row 50": ([BOX], [*[row(0.5, OFF, action=2)] * 50, row(0.5)], 0, 1),
    "equal scores, greater id": (
        [BOX],
        [*[row(0.5, OFF, action=2)] * 49, row(0.5), row(0.5, action=5)],
        0,
        1,
    ),
    "equal scores, greater box": ([BOX], [*[row(0.5, OFF)] * 50, row(0.5)], 0, 1 / 51),
    "equal scores, smaller box": (
        [BOX],
        [*[row(0.5, (0, 0.1, 0.1, 0.2))] * 50, row(0.5)],
        1 / 50,
        1 / 51,
    ),
    "the higher score takes the box": ([BOX], [row(0.4), row(0.8)], 1, 0.5),
    "repeated predictions are wrong": (
        [BOX, ANOTHER],
        [row(0.8), row(0.8), row(0.8)],
        1 / 3,
        1 / 3,
    ),
    "repeated ground truth cannot be found": ([BOX, BOX], [row(0.8), row(0.7)], 0.5, 0.5),
    "no second choice": (
        [row(0, LEFT), row(0, RIGHT)],
        [row(0.9, RIGHT), row(0.8, (0.14, 0.25, 0.64, 0.75)), row(0.7, OFF)],
        0.5,
        0.5,
    ),
    "equal IoU: the greater person id first": (
        [row(0, LEFT), row(1, RIGHT)],
        [row(0.9, MIDDLE), row(0.8, LEFT)],
        1,
        0.5,
    ),
    "an IoU of just 0.5": ([row(0, (0, 0, 1, 1))], [row(0.5, (0, 0, 0.5, 1))], 1, 1),
    "an IoU below 0.5": ([row(0, (0, 0, 1, 1))], [row(0.5, (0, 0, 0.4999, 1))], 0, 0),
    "a tie never helps": ([BOX], [row(0.5), row(0.5, OFF)], 0.5, 0.5),
    "zero-padded seconds": ([BOX], [row(0.5, second="902")], 1, 1),
    "seconds with decimals": ([row(0, second="902.5")], [row(0.5, second="0902.500000")], 1, 1),
    "another tenth": (
        [row(0, second="902.5"), row(0, second="902.6")],
        [row(0.9, second="902.5"), row(0.5, OFF, second="902.6")],
        0.5,
        0.5,
    ),
    "the seventh decimal": (
        [row(0, second="902.1234561")],
        [row(0.5, second="902.1234564")],
        1,
        1,
    ),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("edge", EDGES)
def test_edges(tmp_path, edge, protocol):
    truth, rows, *expected = EDGES[edge]
    precision = agrees_with_reference(tmp_path, truth, rows, protocol)
    assert precision[0] == pytest.approx(expected[PROTOCOLS.index(protocol)], nan_ok=True)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_excluded_keyframes_leave_both_files(tmp_path, protocol):
    truth = [BOX, row(0, second="0903"), ANOTHER]
    rows = [row(0.9, OFF, second="0903"), row(0.5)]
    excluded = [("v", "903"), ("other", "0902")]
    assert agrees_with_reference(tmp_path, truth, rows, protocol)[0] == 0.25
    assert agrees_with_reference(tmp_path, truth, rows, protocol, excluded)[0] == 1


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_known_answer(request, protocol):
    folder = request.path.parent / "ava_fixture"
    files = [folder / name for name in ("ground_truth.csv", "predictions.csv")]
    results, _ = evaluate_files(*files, {i: f"action{i}" for i in (1, 2, 3)}, None, protocol)
    assert results.mean() == pytest.approx(0.09385521885521886, rel=1e-15)
    assert results.average_precision == pytest.approx([0.170454545454, 0, 0.111111111111])


def data_without_ties(seed):
    """Two videos with up to 120 rows a keyframe, from a generator that does not change."""
    r = random.Random(seed)
    truth, rows = [], []
    for video in ("a", "b"):
        for second in range(902, 908):
            if r.random() < 0.2:
                truth.append([video, f"{second:04d}"])
            people = []
            for person in range(r.randrange(5)):
                x1, y1 = r.uniform(0, 0.6), r.uniform(0, 0.6)
                box = [x1, y1, x1 + r.uniform(0.1, 0.4), y1 + r.uniform(0.1, 0.4)]
                people.append(box)
                for action in r.sample([1, 2, 3, 4, 5, 6, 80], r.randrange(1, 4)):
                    cells = [f"{c:.3f}" for c in box]
                    truth.append([video, f"{second:04d}", *cells, action, person])
            for _ in range(r.choice([0, 3, 30, 120])):
                near = people and r.random() < 0.8
                box = [c + r.uniform(-0.08, 0.08) for c in r.choice(people)] if near else None
                cells = [f"{c:.3f}" for c in box or [r.random() for _ in range(4)]]
                action = r.choice([1, 2, 3, 4, 5, 7, 80])
                rows.append([video, second, *cells, action, repr(r.random())])
    return truth, rows


# What ActivityNet's get_ava_performance.py prints for these files and the ids 1 to 7.
PUBLISHED = {
    0: [
        0.012345679012345678,
        0.17959001782531192,
        0.01020408163265306,
        0.020000000000000004,
        0.0756029684601113,
        0.0,
        NAN,
    ],
    1: [0.04813664596273291, 0.175, 0.0, 0.1323529411764706, 0.058880308880308874, 0.0, NAN],
    2: [
        0.23809523809523808,
        0.04000000000000001,
        0.2,
        0.11688311688311687,
        0.24968944099378879,
        0.0,
        NAN,
    ],
    3: [0.00625, 0.1111111111111111, 0.18371212121212122, 0.33333333333333337, 0.0625, 0.0, NAN],
}


@pytest.mark.parametrize("seed", PUBLISHED)
def test_numbers_of_the_published_script(tmp_path, seed):
    truth, rows = data_without_ties(seed)
    labels = {i: str(i) for i in range(1, 8)}
    files = [write(tmp_path / "gt.csv", truth), write(tmp_path / "pred.csv", rows)]
    results, _ = evaluate_files(*files, labels)
    np.testing.assert_allclose(results.average_precision, PUBLISHED[seed], rtol=0, atol=1e-15)
    assert results.mean() == pytest.approx(np.nanmean(PUBLISHED[seed]), rel=1e-14)


def random_rows(rng, count, video_count=2, empty=0.0):
    """Rows with many equal boxes, scores and keyframes; some inverted, some of two columns."""
    rows = []
    for _ in range(count):
        video, second = f"v{rng.integers(video_count)}", rng.choice(["0902", "902.5", "0903"])
        x1, y1 = rng.choice([0, 0.1, 0.2, 0.3], 2)
        x2, y2 = rng.choice([0.3, 0.5, 0.6, 0.7], 2)
        cells = (*map(float, (x1, y1, x2, y2)), int(rng.choice([1, 2, 3, 5, 77])))
        score = float(rng.choice([0.1, 0.25, 0.5, 0.75, 0.9]))
        rows.append((video, second) if rng.random() < empty else (video, second, *cells, score))
    return rows


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=60)
@given(st.integers(1, 40), st.sampled_from([0, 5, 40, 400]), st.integers(0, 10**6))
def test_equals_the_slow_reference(tmp_path_factory, protocol, boxes, detections, seed):
    rng = np.random.default_rng(seed)
    truth = [r for r in random_rows(rng, boxes, empty=0.1) if len(r) == 2 or r[2] < r[4]]
    truth = [r for r in truth if len(r) == 2 or r[3] < r[5]] or [("v0", "0902")]
    rows = random_rows(rng, detections, 3, empty=0.05)
    excluded = [r[:2] for r in random_rows(rng, int(rng.integers(2)))]
    folder = tmp_path_factory.mktemp("ava")
    agrees_with_reference(folder, truth, rows, protocol, excluded)
    if protocol == "official":  # no order of the rows matters
        one = evaluate(folder, truth, rows)[0].average_precision
        rng.shuffle(rows)
        np.testing.assert_array_equal(evaluate(folder, truth, rows)[0].average_precision, one)


def dense(rng, boxes, distinct=True):
    """Boxes of a detector with a score for each class, as tensors."""
    sides = torch.from_numpy(rng.integers(0, 7, (boxes, 4)) / 10).float()
    sides[:, 2:] = sides[:, 2:] / 2 + 0.3
    scores = torch.from_numpy(rng.random((boxes, len(IDS)))).float()
    scores = scores if distinct else (scores * 4).round() / 4
    video = torch.from_numpy(rng.integers(0, 2, boxes))
    second = torch.from_numpy(rng.choice([902.0, 902.5, 903.0], boxes))
    return sides, scores, video, second


def ground_truth(rng, boxes):
    sides, _, video, second = (t.numpy() for t in dense(rng, boxes))
    sides[:, 2:] = np.minimum(sides[:, :2] + rng.choice([0.2, 0.4], (boxes, 2)), 1)
    person, action = rng.integers(0, 3, boxes), rng.choice([*IDS, 77, -1], boxes)
    return video, second, sides, action, person


def text_rows(detected):
    """Rows as the csv has them, in the order of `DetectedBoxes`."""

    def decimal(value):
        return np.format_float_positional(np.float32(value))

    return [
        (f"v{video}", second, *map(decimal, box), action, decimal(score))
        for video, second, box, scores in zip(*detected, strict=True)
        for action, score in zip(IDS, scores, strict=True)
    ]


@pytest.mark.parametrize("protocol", PROTOCOLS)
@settings(max_examples=40)
@given(
    st.integers(0, 60), st.integers(1, 20), st.integers(1, 4), st.booleans(), st.integers(0, 10**6)
)
def test_any_order_on_any_processes(protocol, boxes, annotated, ranks, distinct, seed):
    rng = np.random.default_rng(seed)
    rows = dense(rng, boxes, distinct)
    truth = ground_truth(rng, annotated)
    metrics = [AVAMeanAveragePrecision(list(LABELS.values()), IDS, protocol) for _ in range(ranks)]
    metrics[0].set_ground_truth(*truth)
    for metric, mine in zip(metrics, np.array_split(rng.permutation(boxes), ranks), strict=True):
        # Its boxes, and some of another process as padding, in batches.
        padding = rng.integers(0, boxes, 2) if boxes else mine
        for batch in np.array_split(np.concatenate([mine, padding]), 3):
            metric.update(*(values[batch] for values in rows))
    metric = joined(metrics, ["keyframe", "boxes", "scores"])
    results, detected = metric.results(), metric.detections()
    keys = {(*b.tolist(), v.item(), s.item()) for b, _, v, s in zip(*rows, strict=True)}
    assert len(detected.boxes) == len(keys)
    gt = [
        (f"v{v}", s, *map(np.format_float_positional, box), action, person)
        for v, s, box, action, person in zip(*truth, strict=True)
    ]
    gt = [r if r[6] > 0 else r[:2] for r in gt]
    expected = average_precisions(gt, text_rows(detected), IDS, protocol)
    np.testing.assert_allclose(results.average_precision, expected, rtol=0, atol=1e-12)
    alone = AVAMeanAveragePrecision(list(LABELS.values()), IDS, protocol)
    alone.annotations = metrics[0].annotations
    alone.update(*rows)
    for a, b in zip(alone.detections(), detected, strict=True):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(results.average_precision, alone.results().average_precision)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_file_gives_the_numbers_of_the_metric(tmp_path, protocol):
    rng = np.random.default_rng(3)
    metric = AVAMeanAveragePrecision(list(LABELS.values()), IDS, protocol)
    sides, scores, video, second = dense(rng, 100)
    sides += torch.from_numpy(rng.uniform(0, 0.05, sides.shape)).float()
    metric.update(sides, scores, video, second)
    truth = ground_truth(rng, 60)
    metric.set_ground_truth(*truth)
    with open(tmp_path / "pred.csv", "wb") as file:
        write_ava_csv(file, ["v0", "v1"], metric.detections(), IDS)
    rows = [
        (f"v{v}", s, *box, action, person) if action > 0 else (f"v{v}", s)
        for v, s, box, action, person in zip(*truth, strict=True)
    ]
    files = [write(tmp_path / "gt.csv", rows), tmp_path / "pred.csv"]
    results, fit = evaluate_files(*files, LABELS, None, protocol)
    assert results.average_precision.tolist() == metric.results().average_precision.tolist()
    assert results.mean() > 0
    assert (fit.both, fit.silent, fit.outside) == (6, [], 0)


def test_boxes_in_float32_are_the_decimals_that_they_stand_for():
    boxes = np.array([[0.077, 0.1, 1, 0.3], [1e-7, 0.123456, 0.5, 0.999]])
    assert (boxes.astype(np.float32) != boxes).any()
    np.testing.assert_array_equal(decimal_boxes(boxes.astype(np.float32)), boxes)
    np.testing.assert_array_equal(decimal_boxes(boxes), boxes)


def test_scores_that_are_nan_do_not_count():
    for protocol in PROTOCOLS:
        metric = AVAMeanAveragePrecision(["a", "b"], [1, 2], protocol)
        box = np.array([[0.1, 0.1, 0.5, 0.5]] * 2)
        metric.set_ground_truth(*map(np.array, ([0, 0], [902, 902], box, [1, 2])))
        zero = torch.zeros(1, dtype=torch.int64)
        scores = torch.tensor([[torch.nan, 0.5]])
        metric.update(torch.from_numpy(box[:1]), scores, zero, zero + 902)
        assert metric.results().average_precision.tolist() == [0, 1]


def test_a_box_that_comes_again_has_the_greater_scores():
    metric = AVAMeanAveragePrecision(["a", "b"], [1, 2])
    zeros = torch.zeros(3, dtype=torch.int64)
    scores = torch.tensor([[0.1, 0.8], [0.5, 0.5], [0.2, 0.7]])
    boxes = torch.tensor([SQUARE, OFF, SQUARE])
    metric.update(boxes, scores, zeros, zeros + 902)
    detected = metric.detections()
    assert detected.boxes.tolist() == boxes[:2].tolist()
    assert detected.scores.tolist() == torch.tensor([[0.2, 0.8], [0.5, 0.5]]).tolist()


def test_a_process_without_boxes_takes_part():
    rng = np.random.default_rng(0)
    other = AVAMeanAveragePrecision(list(LABELS.values()), IDS)
    other.update(*dense(rng, 30))
    alone = AVAMeanAveragePrecision(list(LABELS.values()), IDS)
    states = [torch.cat(getattr(other, name)) for name in ("keyframe", "boxes", "scores")]

    def gather(tensor, group):
        theirs = states.pop(0)
        assert (tensor.dtype, tensor.shape[1:]) == (theirs.dtype, theirs.shape[1:])
        return [tensor, theirs]

    alone.dist_sync_fn, alone.distributed_available_fn = gather, lambda: True
    alone.set_ground_truth(*ground_truth(rng, 10))
    other.annotations = alone.annotations
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert alone.compute() == other.compute()
    assert not states


def test_keyframes_that_were_not_seen_count():
    metric = AVAMeanAveragePrecision(["a"], [1])
    box = [[0.1, 0.1, 0.5, 0.5]] * 2
    metric.set_ground_truth(*map(np.array, ([0, 1], [902, 902], box, [1, 1])))
    with pytest.warns(UserWarning, match="before the ``update``"):
        assert metric.compute()["mAP_official"] == 0
    zero = torch.zeros(1, dtype=torch.int64)
    metric.update(torch.tensor(box[:1]), torch.ones(1, 1), zero, zero + 902)
    assert metric.compute()["mAP_official"] == 0.5
    metric.reset()
    assert metric.results().mean() == 0


def test_groups_and_summary():
    ids = [1, 14, 15, 63, 64, 80]
    values = np.array([0.1, NAN, 0.3, 0.5, NAN, NAN])
    boxes = np.array([3, 0, 1, 1, 0, 0])
    results = AVAResults([f"name {i}" for i in ids], ids, "pyslowfast", values, boxes)
    assert results.groups() == pytest.approx(
        {"pose": 0.1, "object": 0.4, "person": NAN}, nan_ok=True
    )
    assert results.values().keys() == {
        "mAP_pyslowfast",
        *(f"mAP_pyslowfast_{g}" for g in ("pose", "object", "person")),
    }
    summary = results.summary()
    assert summary["mAP@0.5IOU"] == pytest.approx(0.3)
    assert summary["per_class"] == {"name 1": 0.1, "name 15": 0.3, "name 63": 0.5}
    assert summary["groups"]["person"] is None
    assert "mAP@0.5IOU (pyslowfast protocol) of 3 classes" in results.describe()
    # Ids of other data are not in groups.
    few = AVAResults(["a"], [1], "official", np.ones(1), np.ones(1, np.int64))
    assert few.groups() == {}


def test_wrong_use():
    with pytest.raises(ValueError, match="must be one of official, pyslowfast"):
        AVAMeanAveragePrecision(["a"], [1], "coco")
    for ids in ([1], [1, 1]):
        with pytest.raises(ValueError, match="id of its own"):
            AVAMeanAveragePrecision(["a", "b"], ids)
    metric = AVAMeanAveragePrecision(["a"], [1])
    with pytest.raises(ValueError, match="set_ground_truth first"):
        metric.results()
    one = torch.ones(1)
    with pytest.raises(ValueError, match=r"scores \(N, 1\)"):
        metric.update(torch.ones(1, 4), torch.ones(1, 2), one, one)
    for video, second, box, message in (
        (0, 902, (0.5, 0, 0.5, 1), "x1 < x2"),
        (-1, 902, SQUARE, "numbers of videos"),
        (0, -1, SQUARE, "seconds"),
        (0, NAN, SQUARE, "seconds"),
    ):
        with pytest.raises(ValueError, match=message):
            metric.set_ground_truth(*map(np.array, ([video], [second], [box], [1])))


def test_keyframes_are_taken_some_at_a_time(monkeypatch):
    rng = np.random.default_rng(1)
    precisions = []
    metric = AVAMeanAveragePrecision(list(LABELS.values()), IDS)
    metric.set_ground_truth(*ground_truth(rng, 40))
    metric.update(*dense(rng, 200, distinct=False))
    for at_once in (1, 500, 10**6):
        monkeypatch.setattr(ava_matching, "SCORES_AT_ONCE", at_once)
        precisions.append(metric.results().average_precision.tolist())
    assert precisions[0] == precisions[1] == precisions[2]
    assert sum(precisions[0]) > 0
