"""AP against pycocotools, to 1e-9, on sets that are as awkward as possible."""

import contextlib
import io
import json

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from datamodules.coco.annotations import ground_truth
from datamodules.coco.rle import encode, to_text
from datamodules.coco.segmentation import draw
from datamodules.errors import DatasetError
from hiera_video.metrics.coco import STATES, CocoAveragePrecision, DetectedMask
from hiera_video.metrics.coco_evaluation import evaluate_detections
from hiera_video.metrics.coco_results import MEASURES
from hiera_video.results.coco import evaluate_files
from tests.metrics.processes import joined

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

CATEGORIES = [{"id": 1, "name": "a"}, {"id": 5, "name": "b"}, {"id": 9, "name": "never"}]
SIZE = (120, 160)


def pycocotools(truth, detections, kind):
    """The twelve numbers of COCO's own code; masks without boxes, as Detectron2 gives them."""
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = COCO()
        annotations.dataset = json.loads(json.dumps(truth))
        annotations.createIndex()
        rows = json.loads(json.dumps(detections))
        for row in rows:
            row.pop("bbox" if kind == "segm" else "segmentation")
        evaluation = COCOeval(annotations, annotations.loadRes(rows), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return np.where(evaluation.stats < 0, np.nan, evaluation.stats)


def mask_of(box):
    mask = np.zeros(SIZE, bool)
    x, y, w, h = (round(n) for n in box)
    mask[y : y + h, x : x + w] = True
    mask[y, x] = False
    return {"size": list(SIZE), "counts": to_text(encode(mask))}


def random_box(rng, largest=110):
    w, h = np.exp(rng.uniform(np.log(4), np.log(largest), 2))
    return [rng.uniform(0, SIZE[1] - w - 1), rng.uniform(0, SIZE[0] - h - 1), float(w), float(h)]


def random_set(seed):
    """Objects of all sizes, crowds, empty pictures, ties, and more than 100 detections."""
    rng = np.random.default_rng(seed)
    images = [
        {"id": int(i), "file_name": "", "height": SIZE[0], "width": SIZE[1]}
        for i in rng.permutation(9)
    ]
    annotations, detections = [], []
    for image in images[1:]:
        for _ in range(rng.integers(0, 5)):
            box = random_box(rng)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image["id"],
                    "category_id": int(rng.choice([1, 5])),
                    "bbox": box,
                    "area": box[2] * box[3] * rng.uniform(0.3, 1),
                    "iscrowd": int(rng.random() < 0.2),
                    "segmentation": mask_of(box),
                }
            )
            for _ in range(rng.integers(0, 4)):
                near = [n + rng.uniform(-3, 3) * (i < 2) for i, n in enumerate(box)]
                near[0], near[1] = max(0, near[0]), max(0, near[1])
                detections.append((image["id"], annotations[-1]["category_id"], near))
    for image in (images[0], images[1], images[1]):
        many = [(image["id"], int(rng.choice([1, 5, 9])), random_box(rng, 40)) for _ in range(70)]
        detections += many
    rows = [
        {
            "image_id": image,
            "category_id": category,
            "bbox": box,
            "score": float(np.float32(rng.integers(1, 8) / 8)),  # most of them tie
            "segmentation": mask_of(box),
        }
        for image, category, box in detections
    ]
    return {"images": images, "annotations": annotations, "categories": CATEGORIES}, rows


@pytest.mark.parametrize("seed", range(6))
def test_numbers_are_those_of_pycocotools(seed):
    truth, detections = random_set(seed)
    results = evaluate_detections(truth, detections)
    for kind, name in (("bbox", "box"), ("segm", "mask")):
        expected = pycocotools(truth, detections, kind)
        actual = [results.numbers[name][measure] for measure in MEASURES]
        np.testing.assert_allclose(actual, expected, atol=1e-9, rtol=0)
    assert 0 < results.numbers["box"]["AP"] < 1
    assert np.isnan(results.per_class["box"][2])
    assert np.nanmean(results.per_class["mask"]) == pytest.approx(results.numbers["mask"]["AP"])
    assert results.objects.sum() == sum(not a["iscrowd"] for a in truth["annotations"])


@pytest.mark.parametrize(
    "change",
    [
        {"annotations": lambda i: i - 1},
        {"annotations": lambda i: -i},
        {"images": lambda i: i - 20},
        {"images": lambda i: i + 2**62},
        {"categories": lambda i: i + 2**62},
        {"categories": lambda i: i - 5, "images": lambda i: i + 10},
    ],
)
def test_numbers_do_not_depend_on_ids(change):
    """Of annotations from 0 on, negative, or above 2**53, which the matching cannot count to."""
    truth, detections = random_set(1)
    expected = evaluate_detections(truth, detections)
    column = {"images": "image_id", "categories": "category_id", "annotations": ""}
    for section, new in change.items():
        truth[section] = [{**row, "id": new(row["id"])} for row in truth[section]]
        for row in (*truth["annotations"], *detections) if column[section] else ():
            row[column[section]] = new(row[column[section]])
    results = evaluate_detections(truth, detections)
    assert results.summary() == expected.summary()
    assert results.category_ids == [row["id"] for row in truth["categories"]]


def test_without_detections_or_objects():
    truth, _ = random_set(0)
    nothing = evaluate_detections(truth, [])
    assert nothing.numbers["box"]["AP"] == nothing.numbers["mask"]["AP"] == 0
    _, detections = random_set(0)
    results = evaluate_detections({**truth, "annotations": []}, detections)
    assert np.isnan(list(results.values().values())).all()
    assert results.summary()["box"]["AP"] is None
    assert "-" in results.describe()


def metric_of(truth, detections, images):
    """A metric that has seen some of the pictures."""
    metric = CocoAveragePrecision([1, 5, 9])
    metric.set_ground_truth(truth)
    for image in images:
        rows = [r for r in detections if r["image_id"] == truth["images"][image]["id"]]
        rows.sort(key=lambda row: -row["score"])
        box = torch.tensor([r["bbox"] for r in rows], dtype=torch.float64).reshape(-1, 4)
        corners = torch.cat([box[:, :2], box[:, :2] + box[:, 2:]], dim=1)
        metric.update(
            image,
            corners,
            torch.tensor([[1, 5, 9].index(r["category_id"]) + 1 for r in rows], dtype=torch.int64),
            torch.tensor([r["score"] for r in rows]),
            [DetectedMask(torch.from_numpy(draw(r["segmentation"], *SIZE)), (0, 0)) for r in rows],
        )
    return metric


def test_all_processes_have_the_results_of_one():
    truth, detections = random_set(3)
    expected = metric_of(truth, detections, range(9)).results().summary()
    assert metric_of(truth, detections, range(8, -1, -1)).results().summary() == expected
    for shares in ([range(8, 0, -1), [0]], [[], range(9)], [[3, 1, 5], [0, 2, 4], [6, 8, 7]]):
        together = joined([metric_of(truth, detections, share) for share in shares], list(STATES))
        assert together.results().summary() == expected
        assert len(together.detections()) == len(detections)


def test_files_give_the_results_of_the_metric(tmp_path):
    truth, detections = random_set(1)
    metric = metric_of(truth, detections, range(9))
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(metric.detections()))
    results, fit = evaluate_files(tmp_path / "truth.json", tmp_path / "found.json")
    assert results.summary() == metric.results().summary()
    assert {k: float(v) for k, v in metric.compute().items()} == pytest.approx(
        results.values(), nan_ok=True
    )
    assert (fit.detections, fit.cut_off, fit.pictures) == (len(detections), 1, 9)
    assert "more than 100 detections" in fit.describe()


def evaluated(tmp_path, change, change_truth=lambda truth: None):
    truth, detections = random_set(1)
    change_truth(truth)
    detections = change(detections) or detections
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    (tmp_path / "found.json").write_text(json.dumps(detections))
    return evaluate_files(tmp_path / "truth.json", tmp_path / "found.json")


def test_ids_that_the_ground_truth_lacks_are_left_out_and_said(tmp_path):
    def change(rows):
        rows[0]["image_id"], rows[1]["category_id"] = 77, 2

    _, fit = evaluated(tmp_path, change)
    assert (fit.unknown_images, fit.unknown_categories) == ({77: 1}, {2: 1})
    assert "image ids that the ground truth lacks, left out: 77 (1)" in fit.describe()
    only = evaluated(tmp_path, lambda rows: [r for r in rows if r["category_id"] != 5])[1]
    assert "categories with objects and no detection: b" in only.describe()


def test_boxes_alone_are_evaluated(tmp_path):
    def change(rows):
        for row in rows:
            del row["segmentation"]
            row["bbox"] = [n / 200 for n in row["bbox"]]

    results, fit = evaluated(tmp_path, change)
    assert list(results.numbers) == ["box"]
    assert "not in [0, 1]" in fit.describe()
    assert "detections without a mask" in fit.describe()


@pytest.mark.parametrize("mask", [None, []])
def test_objects_without_masks(tmp_path, mask):
    def change(truth):
        truth["annotations"][0]["segmentation"] = mask
        del truth["annotations"][1]["segmentation"]

    results, fit = evaluated(tmp_path, lambda rows: None, change)
    assert list(results.numbers) == ["box"]
    assert "objects without a mask, so that masks are not evaluated: 2" in fit.describe()
    results, fit = evaluated(tmp_path, lambda rows: rows[0].update(segmentation=mask))
    assert list(results.numbers) == ["box"]
    assert "detections without a mask, so that masks are not evaluated: 1" in fit.describe()


def test_masks_of_objects_in_every_form(tmp_path):
    """Polygons and lists of run lengths, on one side or on both, as pycocotools reads them."""

    def change(truth):
        for i, a in enumerate(truth["annotations"]):
            x, y, w, h = a["bbox"]
            polygon = [[x, y, x + w, y, x + w, y + h, x, y + h]]
            counts = encode(draw(polygon, *SIZE)).tolist()
            a["segmentation"] = polygon if i % 2 else {"size": list(SIZE), "counts": counts}

    results, _ = evaluated(tmp_path, lambda rows: None, change)
    truth, detections = random_set(1)
    change(truth)
    actual = list(results.numbers["mask"].values())
    np.testing.assert_allclose(actual, pycocotools(truth, detections, "segm"), atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"iscrowd": None}, {"iscrowd": 0}),
        ({"iscrowd": True}, {"iscrowd": 1}),
        ({"iscrowd": 1.0}, {"iscrowd": 1}),
        ({"area": None}, {"area": 12.0}),
    ],
)
def test_null_counts_as_missing(tmp_path, change, expected):
    def truth_with(values):
        def set_values(truth):
            truth["annotations"][0] |= {"bbox": [1, 1, 3, 4], **values}

        return evaluated(tmp_path, lambda rows: None, set_values)[0].summary()

    assert truth_with(change) == truth_with(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"iscrowd": "0"}, "annotation 1 has iscrowd '0', which must be 0 or 1"),
        ({"iscrowd": 2}, "annotation 1 has iscrowd 2"),
        ({"area": "123.0"}, "annotation 1 has area '123.0', which must be a number"),
        ({"area": -1}, "annotation 1 has area -1"),
        ({"area": float("nan")}, "annotation 1 has area nan"),
        ({"bbox": [0, 0, 10**400, 1]}, "annotation 1 has no bbox"),
        ({"segmentation": [[1, 2, 3, 4]]}, "annotation 1: a polygon must"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "annotation 1: polygons must be a list of lists"),
        ({"segmentation": "abc"}, "annotation 1: no polygons and no run lengths"),
        ({"segmentation": {"size": [160, 120], "counts": [19200]}}, "run lengths of size"),
        ({"segmentation": {"size": [120, 160], "counts": "###"}}, "not the text of"),
        ({"segmentation": {"size": [120, 160], "counts": [5, 5]}}, "10 pixels, not 120 x 160"),
        ({"id": 2**63}, "annotation number 1 has the id 9223372036854775808"),
    ],
)
def test_a_wrong_ground_truth_is_refused_when_it_is_read(tmp_path, change, message):
    with pytest.raises(DatasetError, match=message) as caught:
        evaluated(tmp_path, lambda rows: None, lambda truth: truth["annotations"][0].update(change))
    assert "\n" not in str(caught.value)


def test_boxes_that_are_two_corners(tmp_path):
    def corners(rows):
        for row in rows:
            x, y, w, h = row["bbox"]
            row["bbox"] = [x, y, x + w, y + h]

    line = "boxes of the {} look like x1, y1, x2, y2; they must be x, y, width and height"
    _, fit = evaluated(tmp_path, corners)
    assert fit.corners == ["detections"]
    assert line.format("detections") in fit.describe()
    _, fit = evaluated(tmp_path, lambda rows: None, lambda truth: corners(truth["annotations"]))
    assert line.format("ground truth") in fit.describe()
    assert not evaluated(tmp_path, lambda rows: None)[1].corners

    def move(rows):  # near the corner of the picture, where two corners are a box in it, too
        for row in rows:
            row["bbox"][:2] = [20, 15]

    def moved_corners(rows):
        move(rows)
        corners(rows)

    for change, expected in ((move, []), (moved_corners, ["detections"])):
        _, fit = evaluated(tmp_path, change, lambda truth: move(truth["annotations"]))
        assert fit.corners == expected
    assert not evaluated(tmp_path, lambda rows: [], lambda truth: truth.update(annotations=[]))[
        1
    ].corners


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"image_id": "1"}, "record 1: image_id must be a whole number"),
        ({"score": None}, "record 1: score must be a number"),
        ({"bbox": [1, 2, 3]}, r"record 1: bbox must be \[x, y, width, height\]"),
        ({"segmentation": [[1, 2]]}, "record 1: a polygon must"),
        ({"segmentation": {"size": [120, 160], "counts": [9]}}, "record 1: the runs have 9 pixels"),
    ],
)
def test_wrong_detections(tmp_path, row, message):
    with pytest.raises(DatasetError, match=message):
        evaluated(tmp_path, lambda rows: [{**rows[0], **row}])


def test_unreadable_files(tmp_path):
    with pytest.raises(DatasetError, match="expected a list of detections"):
        evaluated(tmp_path, lambda rows: {"a": 1})
    with pytest.raises(DatasetError, match="no such file"):
        evaluate_files(tmp_path / "truth.json", tmp_path / "none.json")
    assert ground_truth(tmp_path / "truth.json")["images"]
