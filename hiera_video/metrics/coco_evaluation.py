"""COCO's average precision of one set of detections.

The matching is faster_coco_eval's, whose numbers equal those of pycocotools; tests compare both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from datamodules.coco.segmentation import has_mask
from hiera_video.metrics.coco_results import MEASURES, CocoResults

IOU_TYPES: dict[str, Any] = {"box": "bbox", "mask": "segm"}


def evaluate_detections(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> CocoResults:
    """Compute the twelve numbers of COCO for boxes, and for masks where all objects have one.

    Args:
        truth: content of an annotation file, from `datamodules.coco.annotations.ground_truth`.
        detections: as in a file of results: ``image_id``, ``category_id``, ``bbox`` (x, y, width,
            height in pixels), ``score`` and ``segmentation`` (run lengths). Of equal scores in a
            picture, the first counts first.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    categories = sorted(truth["categories"], key=lambda category: category["id"])
    kinds = ["box"]
    if all(map(has_mask, (*detections, *truth["annotations"]))):
        kinds.append("mask")
    numbered, found = _numbered(truth, detections)
    objects = numbered.pop("annotations")
    values, per_class = {}, {}
    for kind in kinds:
        # With its box, a mask would count as small, medium or large by the area of the box.
        left_out = "bbox" if kind == "mask" else "segmentation"
        rows = [{k: v for k, v in row.items() if k != left_out} for row in found]
        annotations = COCO({**numbered, "annotations": [dict(row) for row in objects]})
        results = annotations.loadRes(rows)
        evaluation = COCOeval_faster(
            annotations, results, IOU_TYPES[kind], print_function=lambda *_: None
        )
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        values[kind] = {
            name: _number(value) for name, value in zip(MEASURES, evaluation.stats, strict=False)
        }
        precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (thresholds, recalls, classes)
        means = [
            p[p > -1].mean() if (p > -1).any() else np.nan for p in precision.transpose(2, 0, 1)
        ]
        per_class[kind] = np.array(means, np.float64)
    counts = np.zeros(len(categories), np.int64)
    column = {category["id"]: i for i, category in enumerate(categories)}
    for row in truth["annotations"]:
        counts[column[row["category_id"]]] += not row.get("iscrowd", 0)
    names = [category["name"] for category in categories]
    return CocoResults(names, list(column), values, per_class, counts)


def _numbered(
    truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Copies of both with ids from 1 on, pictures and categories in the order of their ids.

    The matching takes an annotation's id 0 for no object, and refuses or rounds others.
    """
    images, categories = (
        {identity: i for i, identity in enumerate(sorted(row["id"] for row in truth[section]), 1)}
        for section in ("images", "categories")
    )

    def placed(row: Mapping[str, Any]) -> dict[str, Any]:
        image, category = images[row["image_id"]], categories[row["category_id"]]
        return {**row, "image_id": image, "category_id": category}

    numbered = {
        "images": [{**row, "id": images[row["id"]]} for row in truth["images"]],
        "categories": [{**row, "id": categories[row["id"]]} for row in truth["categories"]],
        "annotations": [placed(row) | {"id": i} for i, row in enumerate(truth["annotations"], 1)],
    }
    return numbered, [placed(row) for row in detections]


def _number(value: float) -> float:
    """A number of the evaluation, NaN where it has none."""
    return float("nan") if value < 0 else float(value)
