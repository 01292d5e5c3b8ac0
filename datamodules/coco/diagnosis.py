"""What the annotation of a data set in COCO's format holds, and why AP would be low or 0."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from datamodules.coco.annotations import faults_of, faults_of_masks, read_annotation
from datamodules.coco.boxes import look_like_corners, out_of_picture
from datamodules.coco.segmentation import draw, has_mask
from datamodules.errors import DatasetError, VideoDecodeError
from datamodules.preparing.check import Diagnosis, Fault, listed
from datamodules.video.pictures import PictureFile
from datamodules.wording import counted

if TYPE_CHECKING:
    from datamodules.coco.data_module import CocoDataModule

OPENED = 1000  # pictures whose size is compared, and whose masks are drawn
FITS = 0.5  # IoU from which a box is that of its mask


def diagnose(data: "CocoDataModule", name: str) -> Diagnosis:
    """Check the annotation of ``train``, ``val`` or ``test`` against itself and its pictures.

    Sizes of pictures, and boxes against masks, are checked of `OPENED` pictures, at equal steps
    through the split; categories only after `CocoDataModule.find_class_names`.
    """
    try:
        file = data.truth_file(name)
        content = read_annotation(file)
    except DatasetError as error:
        return Diagnosis([Fault("wrong", str(error))], [f"{name}: no annotation"])
    faults = [Fault("wrong", f"{file}: {fault}") for fault in faults_of(content)]
    if faults:
        return Diagnosis(faults, [])
    if data.category_ids:
        categories = {category["id"]: category["name"] for category in content["categories"]}
        if difference := data.differing_categories(categories):
            faults.append(Fault("wrong", f"{file}: {difference}"))
    folder = data.image_folder(name)
    wrong = chain(_wrong_masks(content), _wrong_sizes(content, folder))
    faults += [Fault("wrong", f"{file}: {fault}") for fault in wrong]
    lines = [*_counts(content), *_reasons(content, folder)]
    return Diagnosis(faults, [f"{name}: {line}" for line in lines])


def _counts(content: Mapping[str, Any]) -> Iterator[str]:
    """What there is."""
    annotations, images = content["annotations"], content["images"]
    crowds = sum(bool(a.get("iscrowd")) for a in annotations)
    with_objects = {a["image_id"] for a in annotations if not a.get("iscrowd")}
    yield (
        f"{counted(len(images), 'pictures')}, {len(images) - len(with_objects)} of them without "
        f"objects; {counted(len(annotations) - crowds, 'objects')} and "
        f"{counted(crowds, 'crowds')} of {counted(len(content['categories']), 'categories')}"
    )
    used = Counter(a["category_id"] for a in annotations if not a.get("iscrowd"))
    if unused := [c["name"] for c in content["categories"] if not used[c["id"]]]:
        yield f"categories without objects, left out of the mean: {listed(unused)}"
    lacking = [a["id"] for a in annotations if a.get("area") is None]
    if lacking:
        yield f"annotations without an area, for which that of the box counts: {listed(lacking)}"


def _reasons(content: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Why AP would be low or 0."""
    annotations = content["annotations"]
    if not any(not a.get("iscrowd") for a in annotations):
        yield "AP would be undefined: there are no objects, or all of them are crowds"
        return
    if not any((folder / image["file_name"]).is_file() for image in content["images"]):
        first = content["images"][0]["file_name"]
        yield (
            f"AP would be 0: none of the pictures is in {folder}, such as {first}; set data.images"
        )
    sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
    box = np.array([a["bbox"] for a in annotations], np.float64)  # (A, 4)
    size = np.array([sizes[a["image_id"]] for a in annotations], np.float64)  # (A, 2)
    if (box[:, 2:] <= 1).all():
        yield "AP would be 0: all boxes are within 1 pixel; they must be in pixels, not in [0, 1]"
    outside = out_of_picture(box, size)
    if look_like_corners(box, size):
        yield ("AP would be 0: boxes look like x1, y1, x2, y2; they must be x, y, width and height")
    elif outside.any():
        ids = [annotations[i]["id"] for i in np.flatnonzero(outside)]
        yield f"boxes that reach out of their picture, by annotation: {listed(ids)}"
    empty = [a["id"] for a in annotations if min(a["bbox"][2:]) == 0]
    if empty:
        yield f"boxes without area, which no detection can match: {listed(empty)}"
    if odd := _odd_boxes(content):
        yield f"boxes that do not fit their masks (IoU below {FITS:g}): {listed(odd)}"


def _wrong_masks(content: Mapping[str, Any]) -> Iterator[str]:
    """Objects without a mask, from which none is learned, and masks that cannot be drawn."""
    for annotation in content["annotations"]:
        if not has_mask(annotation) and not annotation.get("iscrowd"):
            yield f"annotation {annotation['id']} has no mask, neither polygons nor run lengths"
    yield from faults_of_masks(content)


def _odd_boxes(content: Mapping[str, Any]) -> list[int]:
    """Annotations whose box is far from their mask."""
    odd = []
    for annotation, size in _chosen_objects(content):
        try:
            mask = draw(annotation.get("segmentation"), *size)
        except ValueError:
            continue
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if not len(rows):
            odd.append(annotation["id"])
            continue
        x, y, w, h = annotation["bbox"]
        x1, y1, x2, y2 = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        common = max(0, min(x + w, x2) - max(x, x1)) * max(0, min(y + h, y2) - max(y, y1))
        least_w, least_h = max(w, 1), max(h, 1)  # of pixels that are thinner than one
        if common < FITS * (least_w * least_h + (x2 - x1) * (y2 - y1) - common) and min(w, h) > 2:
            odd.append(annotation["id"])
    return odd


def _wrong_sizes(content: Mapping[str, Any], folder: Path) -> Iterator[str]:
    """Pictures of another size than the annotation says."""
    for image in _chosen(content["images"]):
        expected = image["width"], image["height"]
        try:
            with PictureFile(folder / image["file_name"], unturned=expected) as file:
                wide, high = file.width, file.height
        except VideoDecodeError:
            continue  # is reported as missing or corrupt
        if (wide, high) != expected:
            yield (
                f"image {image['id']}, {image['file_name']}, is {wide}x{high} and not "
                f"{expected[0]}x{expected[1]}"
            )


def _chosen_objects(
    content: Mapping[str, Any],
) -> Iterator[tuple[Mapping[str, Any], tuple[int, int]]]:
    """Objects of some pictures, each with the height and width of its picture."""
    sizes = {i["id"]: (i["height"], i["width"]) for i in _chosen(content["images"])}
    for annotation in content["annotations"]:
        if annotation["image_id"] in sizes and not annotation.get("iscrowd"):
            yield annotation, sizes[annotation["image_id"]]


def _chosen(images: Sequence[Any]) -> Sequence[Any]:
    return images[:: -(-len(images) // OPENED)]
