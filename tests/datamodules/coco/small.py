"""A tiny data set in COCO's format, written by hand."""

import json

import numpy as np
from PIL import Image


def square(x, y, side):
    """A square as a polygon; it covers whole pixels."""
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def annotation(number, image, category=4, x=10, y=20, side=16, **more):
    return {
        "id": number,
        "image_id": image,
        "category_id": category,
        "bbox": [x, y, side, side],
        "area": side * side,
        "iscrowd": 0,
        "segmentation": square(x, y, side),
        **more,
    }


def content():
    """Three pictures of 96x64: two objects, none, a crowd and an object."""
    return {
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 96, "height": 64} for i in (7, 3, 12)
        ],
        "annotations": [
            annotation(1, 12, x=60),
            annotation(2, 7, category=90),
            annotation(3, 12, iscrowd=1, segmentation={"size": [64, 96], "counts": [0, 6144]}),
            annotation(4, 7, x=40, y=5, side=8),
        ],
        "categories": [{"id": 90, "name": "toothbrush"}, {"id": 4, "name": "plane"}],
    }


def write(root, value=None, split="train", size=(96, 64)):
    """Write the annotation and its pictures: what an object covers is white."""
    value = value or content()
    (root / "annotations").mkdir(parents=True, exist_ok=True)
    (root / split).mkdir(exist_ok=True)
    for image in value["images"]:
        pixels = np.zeros((size[1], size[0], 3), np.uint8)
        for a in value["annotations"]:
            if a.get("image_id") == image.get("id") and not a.get("iscrowd"):
                x, y, w, h = map(int, a["bbox"])
                pixels[y : y + h, x : x + w] = 255
        Image.fromarray(pixels).save(root / split / image["file_name"])
    file = root / "annotations" / f"instances_{split}.json"
    file.write_text(json.dumps(value))
    return file
