"""COCO's annotation files, as arrays that forked workers share.

A file is ``{"images": [...], "annotations": [...], "categories": [...]}``, see
https://cocodataset.org/#format-data. Boxes are x, y, width and height in pixels.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from datamodules.coco.segmentation import check_mask, has_mask
from datamodules.errors import AnnotationError, DatasetError
from datamodules.manifests.lists import read_json
from datamodules.manifests.manifest import Manifest

SECTIONS = ("images", "annotations", "categories")
LARGEST_ID = 2**63 - 1
SHOWN = 4  # categories in a message


@dataclass(frozen=True)
class CocoAnnotations:
    """Pictures and the objects in them. Those of picture i are rows offsets[i] to offsets[i + 1].

    Attributes:
        file: the annotation file.
        image_id: int64 ``(I,)``.
        file_name: of each picture, strings.
        height: pixels, int64 ``(I,)``.
        width: likewise.
        offsets: int64 ``(I + 1,)``.
        annotation_id: int64 ``(A,)``.
        category: index of the class, int64 ``(A,)``.
        crowd: whether a row stands for a group of objects, bool ``(A,)``.
        box: x, y, width, height in pixels, float64 ``(A, 4)``.
        segmentation: as JSON, large binary; the file need not have it.
        category_ids: the number of each class, ascending; there may be gaps.
        class_names: of each class.
    """

    file: str
    image_id: np.ndarray
    file_name: pa.Array
    height: np.ndarray
    width: np.ndarray
    offsets: np.ndarray
    annotation_id: np.ndarray
    category: np.ndarray
    crowd: np.ndarray
    box: np.ndarray
    segmentation: pa.Array
    category_ids: tuple[int, ...]
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.image_id)

    def rows(self, image: int) -> np.ndarray:
        """Rows of the objects of a picture, crowds included, int64 ``(n,)``."""
        return np.arange(self.offsets[image], self.offsets[image + 1])

    def num_objects(self) -> np.ndarray:
        """How many objects that are no crowds each picture has, int64 ``(I,)``."""
        total = np.concatenate([[0], np.cumsum(~self.crowd)])
        return np.diff(total[self.offsets])


@dataclass(frozen=True, kw_only=True)
class CocoManifest(Manifest):
    """Pictures of one split that exist; each row has the path of one.

    Attributes:
        annotations: of the whole file; the table's column ``image`` is an index into it.
    """

    annotations: CocoAnnotations

    def image(self, index: int) -> int:
        """The index of a row's picture in the annotations."""
        return self.table["image"][index].as_py()


def read_annotation(file: Path) -> dict[str, Any]:
    """Read an annotation file.

    Raises:
        DatasetError: the file cannot be read, or is not of this form.
    """
    content = read_json(file)
    for section in SECTIONS:
        values = content.get(section) if isinstance(content, dict) else None
        if not isinstance(values, list) or not all(isinstance(v, dict) for v in values):
            raise DatasetError(f"{file}: expected a list of objects in {section!r}, as in COCO")
    return content


def ground_truth(file: Path) -> dict[str, Any]:
    """Read an annotation file for evaluation, with what files of one's own may lack.

    ``iscrowd`` is 0 and ``area``, by which objects are small, medium or large, that of the box;
    null counts as missing. An annotation without a mask has no ``segmentation``.

    Raises:
        DatasetError: see `read_annotation`.
        AnnotationError: see `faults_of` and `faults_of_masks`.
    """
    content = read_annotation(file)
    for fault in chain(faults_of(content), faults_of_masks(content)):
        raise AnnotationError(f"{file}: {fault}")
    for annotation in content["annotations"]:
        annotation["iscrowd"] = int(annotation.get("iscrowd") or 0)
        if annotation.get("area") is None:
            annotation["area"] = annotation["bbox"][2] * annotation["bbox"][3]
        if not has_mask(annotation):
            annotation.pop("segmentation", None)
    return content


def read_coco(file: Path) -> CocoAnnotations:
    """Read an annotation file for training.

    Raises:
        DatasetError: see `read_annotation`.
        AnnotationError: see `faults_of`.
    """
    content = read_annotation(file)
    for fault in faults_of(content):
        raise AnnotationError(f"{file}: {fault}; see all with: hiera-video check --config ...")
    images, annotations = content["images"], content["annotations"]
    categories = sorted(content["categories"], key=lambda category: category["id"])
    ids = [category["id"] for category in categories]
    place = {image["id"]: i for i, image in enumerate(images)}
    image_of = np.array([place[a["image_id"]] for a in annotations], np.int64)
    order = np.argsort(image_of, kind="stable")
    annotations = [annotations[i] for i in order.tolist()]
    segmentation = [json.dumps(a.get("segmentation")).encode() for a in annotations]
    return CocoAnnotations(
        file=str(file),
        image_id=np.array([image["id"] for image in images], np.int64),
        file_name=pa.array([image["file_name"] for image in images], pa.string()),
        height=np.array([image["height"] for image in images], np.int64),
        width=np.array([image["width"] for image in images], np.int64),
        offsets=np.searchsorted(image_of[order], np.arange(len(images) + 1)),
        annotation_id=np.array([a["id"] for a in annotations], np.int64),
        category=np.searchsorted(ids, np.array([a["category_id"] for a in annotations], np.int64)),
        crowd=np.array([bool(a.get("iscrowd", 0)) for a in annotations], bool),
        box=np.array([a["bbox"] for a in annotations], np.float64).reshape(-1, 4),
        segmentation=pa.array(segmentation, pa.large_binary()),
        category_ids=tuple(ids),
        class_names=tuple(category["name"] for category in categories),
    )


def faults_of(content: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with an annotation file, one line each; such a file is not used.

    Args:
        content: from `read_annotation`.
    """
    images, annotations, categories = (content[section] for section in SECTIONS)
    if not images:
        yield "there are no images"
    yield from _faults_of_ids("category", categories)
    for category in categories:
        if not isinstance(category.get("name"), str):
            yield f"category {category.get('id')} has no name"
    yield from _faults_of_ids("image", images)
    for image in images:
        if not isinstance(image.get("file_name"), str):
            yield f"image {image.get('id')} has no file_name"
        elif not all(_is_count(image.get(side)) for side in ("height", "width")):
            yield f"image {image.get('id')} has no height and width in whole pixels"
    yield from _faults_of_ids("annotation", annotations)
    image_ids, category_ids = _ids_of(images), _ids_of(categories)
    for annotation in annotations:
        name = f"annotation {annotation.get('id')}"
        if not _is_among(image_id := annotation.get("image_id"), image_ids):
            yield f"{name} is of image {image_id!r}, which is not in images"
        elif not _is_among(category_id := annotation.get("category_id"), category_ids):
            yield f"{name} is of category {category_id!r}, which is not in categories"
        elif not is_box(annotation.get("bbox")):
            yield f"{name} has no bbox [x, y, width, height]"
        elif (crowd := annotation.get("iscrowd")) not in (0, 1, None):
            yield f"{name} has iscrowd {crowd!r}, which must be 0 or 1"
        elif (area := annotation.get("area")) is not None and not (_is_number(area) and area >= 0):
            yield f"{name} has area {area!r}, which must be a number of pixels, 0 or more"


def faults_of_masks(content: Mapping[str, Any]) -> Iterator[str]:
    """Masks that cannot be drawn, one line each, of a file without other faults.

    Args:
        content: from `read_annotation`.
    """
    sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
    for annotation in filter(has_mask, content["annotations"]):
        try:
            check_mask(annotation["segmentation"], *sizes[annotation["image_id"]])
        except ValueError as error:
            yield f"annotation {annotation['id']}: {error}"


def differing_categories(
    categories: Mapping[int, str], others: Mapping[int, str], split: str
) -> str:
    """How the categories of two splits differ, one line; empty if they do not.

    Args:
        categories: names by id.
        others: likewise, of the split to compare with.
        split: what the line calls that split.
    """
    here, there = categories.items() - others.items(), others.items() - categories.items()
    found = [
        f"{where} alone: " + ", ".join(f"{number} {name}" for number, name in sorted(only)[:SHOWN])
        for where, only in (("here", here), ("there", there))
        if only
    ]
    if not found:
        return ""
    return (
        f"{len(categories)} categories, and other ones than the {len(others)} of {split} "
        f"({'; '.join(found)}); all splits must have the same ids and names"
    )


def is_box(box: Any) -> bool:
    """Whether a value is four finite numbers, of which width and height are not negative."""
    return (
        isinstance(box, Sequence)
        and len(box) == 4
        and all(map(_is_number, box))
        and box[2] >= 0
        and box[3] >= 0
    )


def _faults_of_ids(kind: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    seen: set[int] = set()
    for number, row in enumerate(rows, 1):
        identity = row.get("id")
        if not isinstance(identity, int) or isinstance(identity, bool):
            yield f"{kind} number {number} has no whole number as id, but {identity!r}"
        elif identity in seen:
            yield f"{kind} {identity} occurs twice"
        elif abs(identity) > LARGEST_ID:
            yield f"{kind} number {number} has the id {identity}; the largest is {LARGEST_ID}"
        else:
            seen.add(identity)


def _ids_of(rows: Sequence[Mapping[str, Any]]) -> set[int]:
    return {row["id"] for row in rows if isinstance(row.get("id"), int)}


def _is_among(value: Any, ids: set[int]) -> bool:
    return isinstance(value, int) and value in ids


def _is_number(value: Any) -> bool:
    """Whether a value is a finite number."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
