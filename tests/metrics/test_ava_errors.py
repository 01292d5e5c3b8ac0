"""Kinds of errors, compared with a reference that looks at row after row."""

import random

import numpy as np
import pytest

from hiera_video.metrics.ava_errors import KINDS
from hiera_video.results.ava import evaluate_files
from tests.metrics.slow_ava_reference import average_precisions, iou

IDS = (1, 2, 3)
LABELS = {i: f"action {i}" for i in IDS}
PERSON, NEIGHBOUR = (0.1, 0.1, 0.5, 0.5), (0.4, 0.1, 0.8, 0.5)  # they do not overlap by half


def evaluate(folder, truth, rows, protocol="official"):
    files = [folder / "gt.csv", folder / "pred.csv"]
    for file, lines in zip(files, (truth, rows), strict=True):
        file.write_text("".join(",".join(map(str, line)) + "\n" for line in lines))
    return evaluate_files(*files, LABELS, protocol=protocol, errors=True)[0]


def row(box, action, last, second="0902"):
    return ("v", second, *box, action, last)


def turned(row):
    x1, y1, x2, y2 = map(float, row[2:6])
    return y1, x1, y2, x2


def kinds_by_rows(truth, rows):
    """The kind of each row, in plain Python; rows have distinct scores."""
    kinds, taken = {}, set()
    for number, one in sorted(enumerate(rows), key=lambda pair: -float(pair[1][7])):
        here = [(i, t) for i, t in enumerate(truth) if t[:2] == one[:2]]
        overlaps = [(iou(turned(one), turned(t)), i, t[6] == one[6]) for i, t in here]
        own = max((o for o in overlaps if o[2]), default=(0, None, True), key=lambda o: o[0])
        if own[0] >= 0.5 and own[1] not in taken:
            taken.add(own[1])
            kinds[number] = "right"
        elif own[0] >= 0.5:
            kinds[number] = "duplicate"
        elif max((o[0] for o in overlaps), default=0) >= 0.5:
            kinds[number] = "confusion"
        else:
            kinds[number] = "localisation" if own[0] >= 0.1 else "background"
    return kinds, len(taken)


@pytest.mark.parametrize(
    ("box", "action", "kind"),
    [
        (PERSON, 1, "right"),
        ((0.1, 0.1, 0.5, 0.35), 1, "right"),
        (PERSON, 2, "confusion"),
        (NEIGHBOUR, 1, "confusion"),  # although the person with action 1 is near
        ((0.1, 0.1, 0.5, 0.2), 1, "localisation"),
        ((0.1, 0.1, 0.5, 0.2), 2, "background"),
        ((0.1, 0.6, 0.5, 0.9), 1, "background"),
    ],
)
def test_each_kind(tmp_path, box, action, kind):
    truth = [row(PERSON, 1, 0), row(NEIGHBOUR, 3, 1), row((0.9, 0.9, 1, 1), 2, 2)]
    errors = evaluate(tmp_path, truth, [row(box, action, 0.5)]).errors
    expected = np.zeros((3, 5), int)
    expected[action - 1, KINDS.index(kind)] = 1
    assert np.array_equal(errors.counts, expected)
    assert errors.missed.sum() == 3 - (kind == "right")


def test_of_two_on_one_box_the_second_is_a_duplicate(tmp_path):
    truth = [row(PERSON, 1, 0), row(PERSON, 1, 0, second="0903")]
    rows = [row(PERSON, 1, 0.5), row(PERSON, 1, 0.9)]
    errors = evaluate(tmp_path, truth, rows).errors
    assert errors.counts[0].tolist() == [1, 1, 0, 0, 0]
    assert errors.missed[0] == 1
    assert errors.shares()["duplicate"] == 0.5


def test_the_first_n_count_and_those_that_tie(tmp_path):
    truth = [row(PERSON, 1, 0), row(PERSON, 2, 0)]
    rows = [row(PERSON, 1, 0.9), row((0.6, 0.6, 0.9, 0.9), 1, 0.8)]
    rows += [row(PERSON, 2, 0.5), row((0.6, 0.6, 0.9, 0.9), 2, 0.5)]
    counts = evaluate(tmp_path, truth, rows).errors.counts
    assert counts[0].tolist() == [1, 0, 0, 0, 0]
    assert counts[1].tolist() == [1, 0, 0, 0, 1]


@pytest.mark.parametrize("protocol", ["official", "pyslowfast"])
@pytest.mark.parametrize("seed", range(6))
def test_agrees_with_the_reference(tmp_path, seed, protocol):
    random.seed(seed)
    grid = [i / 16 for i in range(17)]

    def box():
        x1, x2 = sorted(random.sample(grid, 2))
        y1, y2 = sorted(random.sample(grid, 2))
        return x1, y1, x2, y2

    seconds = ("0902", "0903", "0904")
    people = [(box(), second) for second in seconds for _ in range(3)]
    truth = [row(b, a, i, s) for i, (b, s) in enumerate(people) for a in random.sample(IDS, 2)]
    scores = iter(random.sample(range(1000), 100))
    near = [(tuple(min(1, c + random.choice((0, 0, 1 / 16))) for c in b), s) for b, s in people]
    boxes = [*people, *near, *((box(), random.choice(seconds)) for _ in range(6))]
    boxes = [(b, s) for b, s in boxes if b[0] < b[2] and b[1] < b[3]]
    rows = [row(b, random.choice(IDS), next(scores) / 1000, s) for b, s in boxes]
    if protocol == "pyslowfast":  # in which the earlier row has a box
        rows.sort(key=lambda one: -one[7])
    results = evaluate(tmp_path, truth, rows, protocol)
    kinds, right = kinds_by_rows(truth, rows)
    assert set(kinds.values()) >= {"right", "confusion"}
    for column, action in enumerate(IDS):
        of_class = [i for i, one in enumerate(rows) if one[6] == action]
        number = sum(one[6] == action for one in truth)
        first = sorted(of_class, key=lambda i: -rows[i][7])[:number]
        expected = [sum(kinds[i] == kind for i in first) for kind in KINDS]
        assert results.errors.counts[column].tolist() == expected
    assert len(truth) - results.errors.missed.sum() == right
    for place, kind in enumerate(KINDS[1:]):
        rest = [one for i, one in enumerate(rows) if kinds[i] != kind]
        expected = average_precisions(truth, rest, IDS, protocol)
        np.testing.assert_allclose(results.errors.without[:, place], expected, atol=1e-12)


def test_without_detections_or_ground_truth(tmp_path):
    errors = evaluate(tmp_path, [row(PERSON, 1, 0)], []).errors
    assert errors.missed.tolist() == [1, 0, 0]
    assert np.isnan(errors.shares()["right"])
    assert errors.means()["confusion"] == 0
    summary = errors.summary()
    assert summary["shares"]["right"] is None
    assert summary["per_class"]["action 1"]["missed"] == 1


def test_the_table_has_a_line_for_each_class(tmp_path):
    truth = [row(PERSON, 1, 0), row(NEIGHBOUR, 3, 1)]
    results = evaluate(tmp_path, truth, [row(PERSON, 1, 0.9), row(PERSON, 3, 0.8)])
    lines = results.errors.describe().splitlines()
    assert lines[0].split() == [*KINDS, "missed", "class"]
    assert lines[3].split() == ["0", "0", "1", "0", "0", "1", "action", "3"]
    assert "50.0%" in lines[4]
    assert "confusion 0.5000" in lines[5]
    assert results.describe().endswith(results.errors.describe())
    assert results.summary()["errors"] == results.errors.summary()
