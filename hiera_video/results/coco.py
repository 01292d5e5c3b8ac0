"""COCO's metric from json files, and how the files fit each other if it is low."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from datamodules.coco.annotations import ground_truth, is_box
from datamodules.coco.boxes import are_ordered, look_like_corners, num_found
from datamodules.coco.segmentation import has_mask, run_lengths
from datamodules.errors import DatasetError
from datamodules.manifests.lists import read_json
from hiera_video.metrics.coco_evaluation import evaluate_detections
from hiera_video.metrics.coco_results import CocoResults

ProgressLine = Callable[[str, str | None], AbstractContextManager[Any]]
MOST_COUNTED = 100  # detections of a picture


class Fit(NamedTuple):
    """How detections and ground truth fit each other.

    Attributes:
        pictures: number of pictures in the ground truth.
        predicted: number of them that have detections.
        detections: number of detections.
        unknown_images: number of detections of each image id that the ground truth lacks.
        unknown_categories: likewise of each category id.
        never: categories with objects and no detection.
        cut_off: number of pictures with more than 100 detections, of which the best 100 count.
        tiny: number of boxes whose sides are at most 1, which may be shares and not pixels.
        corners: which of ``ground truth`` and ``detections`` have boxes that look like x1, y1, x2,
            y2.
        without_mask: number of detections without a mask; with any, masks are not evaluated.
        objects_without_mask: likewise of objects of the ground truth.
    """

    pictures: int
    predicted: int
    detections: int
    unknown_images: dict[int, int]
    unknown_categories: dict[int, int]
    never: list[str]
    cut_off: int
    tiny: int
    corners: list[str]
    without_mask: int
    objects_without_mask: int

    def describe(self) -> str:
        """The same in words; what is not worth a line is left out."""
        lines = [
            f"{self.detections:,} detections in {self.predicted:,} of {self.pictures:,} pictures"
        ]
        for kind, ids in (("image", self.unknown_images), ("category", self.unknown_categories)):
            if ids:
                shown = ", ".join(f"{i} ({n:,})" for i, n in list(ids.items())[:8])
                more = ", ..." if len(ids) > 8 else ""
                lines.append(f"{kind} ids that the ground truth lacks, left out: {shown}{more}")
        if self.never:
            lines.append(f"categories with objects and no detection: {', '.join(self.never)}")
        if self.tiny and self.tiny == self.detections:
            lines.append("all boxes are within 1 pixel; they must be in pixels, not in [0, 1]")
        lines += [
            f"boxes of the {name} look like x1, y1, x2, y2; they must be x, y, width and height"
            for name in self.corners
        ]
        if self.cut_off:
            lines.append(
                f"pictures with more than {MOST_COUNTED} detections, of which the best count: "
                f"{self.cut_off:,}"
            )
        for kind, count in (
            ("detections", self.without_mask),
            ("objects", self.objects_without_mask),
        ):
            if count:
                lines.append(f"{kind} without a mask, so that masks are not evaluated: {count:,}")
        return "\n".join(lines)


def evaluate_files(
    truth_file: Path,
    predictions: Path,
    progress_line: ProgressLine = lambda name, unit: nullcontext(),
) -> tuple[CocoResults, Fit]:
    """Evaluate a json file of results in COCO's form.

    Detections of unknown pictures and categories are left out.

    Args:
        truth_file: annotation such as ``instances_val2017.json``.
        predictions: list of ``{"image_id", "category_id", "bbox", "score", "segmentation"}``.
        progress_line: opens a display of some work, by its name.

    Raises:
        DatasetError: a file cannot be read, or a row is wrong; names the file and the row.
    """
    with progress_line(f"read {truth_file.name}", None):
        truth = ground_truth(truth_file)
    with progress_line(f"read {predictions.name}", None):
        rows = read_detections(predictions, {i["id"]: i for i in truth["images"]})
    images = {image["id"] for image in truth["images"]}
    categories = {category["id"]: category["name"] for category in truth["categories"]}
    kept = [r for r in rows if r["image_id"] in images and r["category_id"] in categories]
    with progress_line("match boxes and masks", None):
        results = evaluate_detections(truth, kept)
    return results, _fit(truth, rows, kept, categories)


def read_detections(file: Path, images: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Read a file of results; masks become run lengths as text.

    Args:
        file: json file.
        images: of the ground truth, by id.

    Raises:
        DatasetError: the file cannot be read, or a row is wrong; names the row.
    """
    rows = read_json(file)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatasetError(f"{file}: expected a list of detections, as COCO's results")
    for number, row in enumerate(rows, 1):
        where = f"{file}, record {number}"
        for key in ("image_id", "category_id"):
            if not isinstance(row.get(key), int):
                raise DatasetError(f"{where}: {key} must be a whole number, not {row.get(key)!r}")
        if not isinstance(row.get("score"), int | float) or not row["score"] == row["score"]:
            raise DatasetError(f"{where}: score must be a number, not {row.get('score')!r}")
        if not is_box(row.get("bbox")):
            raise DatasetError(f"{where}: bbox must be [x, y, width, height] in pixels")
        if not has_mask(row):
            row.pop("segmentation", None)
        elif image := images.get(row["image_id"]):
            size = image["height"], image["width"]
            try:
                row["segmentation"] = run_lengths(row["segmentation"], *size)
            except ValueError as error:
                raise DatasetError(f"{where}: {error}") from None
    return rows


def _fit(
    truth: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    kept: Sequence[Mapping[str, Any]],
    categories: Mapping[int, str],
) -> Fit:
    images = {image["id"] for image in truth["images"]}
    per_image = Counter(row["image_id"] for row in rows)
    per_category = Counter(row["category_id"] for row in rows)
    annotated = {a["category_id"] for a in truth["annotations"] if not a.get("iscrowd")}
    detected = {row["category_id"] for row in kept}
    return Fit(
        pictures=len(images),
        predicted=len(images & per_image.keys()),
        detections=len(rows),
        unknown_images={i: n for i, n in per_image.items() if i not in images},
        unknown_categories={i: n for i, n in per_category.items() if i not in categories},
        never=[name for i, name in categories.items() if i in annotated - detected],
        cut_off=sum(n > MOST_COUNTED for n in per_image.values()),
        tiny=sum(max(row["bbox"][2:]) <= 1 for row in rows),
        corners=_corners(truth, kept),
        without_mask=sum(not has_mask(row) for row in rows),
        objects_without_mask=sum(not has_mask(a) for a in truth["annotations"]),
    )


def _corners(truth: Mapping[str, Any], detections: Sequence[Mapping[str, Any]]) -> list[str]:
    """See `Fit.corners`. Detections are also read as corners, which may find more objects."""
    sizes = {image["id"]: (image["width"], image["height"]) for image in truth["images"]}
    files = []
    for rows in (truth["annotations"], detections):
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        of = np.array([sizes[row["image_id"]] for row in rows], np.float64).reshape(-1, 2)
        files.append((np.array([row["image_id"] for row in rows], np.int64), boxes, of))
    (image, objects, _), (place, boxes, _) = files
    names = [
        name
        for name, (_, *file) in zip(("ground truth", "detections"), files, strict=True)
        if look_like_corners(*file)
    ]
    if not names and are_ordered(boxes):
        found, as_corners = 0, 0
        for identity in np.unique(place):
            here, there = _sides_added(objects[image == identity]), boxes[place == identity]
            found += num_found(here, _sides_added(there))
            as_corners += num_found(here, there)
        names += ["detections"] * (as_corners > found)
    return names


def _sides_added(boxes: np.ndarray) -> np.ndarray:
    """x1, y1, x2, y2 of boxes with sides, both float ``(N, 4)``."""
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1)
