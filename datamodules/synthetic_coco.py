"""A data set in COCO's format that writes itself: pictures of shapes with exact masks.

Discs, squares and triangles lie on a faintly textured background and cover each other in part. The
masks of those that are not covered are polygons (discs: run lengths), the others run lengths of
what is seen. A few pictures are empty. A few shapes are annotated as a crowd.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from datamodules.arguments import check_numbers
from datamodules.coco.data_module import CocoDataModule
from datamodules.coco.rle import encode, to_text
from datamodules.coco.segmentation import draw_polygon
from datamodules.manifests.splitting import SPLITS
from datamodules.synthetic import described_folder, paint, texture, write_once

CATEGORIES = {3: "disc", 7: "square", 12: "triangle"}  # with gaps, as COCO's
VERSION = 2  # of what `render_picture` draws; a new version makes a new data set
CORNERS = {"square": 4, "triangle": 3}

_EMPTY = 0.05  # share of pictures without shapes
_CROWD = 0.03  # share of shapes that are annotated as a crowd
_MOST_SHAPES = 4
_RADIUS = (0.1, 0.22)  # of a shape, as a share of the picture's side
_CONTRAST = 0.25  # of textures; the stronger, the slower a small network learns
_LEAST_SEEN = 0.4  # share of a shape that others leave uncovered, or it is not drawn


class Shape(NamedTuple):
    """A shape in a picture.

    Attributes:
        category: its id.
        mask: of all of it, bool ``(size, size)``.
        polygon: its corners, x and y in pixels, float64 ``(n, 2)``; None for a disc.
    """

    category: int
    mask: np.ndarray
    polygon: np.ndarray | None


def render_picture(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[Any]]:
    """Draw a picture.

    Args:
        rng: source of randomness.
        size: height and width, pixels.

    Returns:
        uint8 ``(size, size, 3)``, and the annotations of its shapes, without ids.
    """
    grid = np.arange(size, dtype=np.float32) + 0.5
    picture = 0.4 * _painted(grid / 8, rng)  # (size, size, 3)
    shapes: list[Shape] = []
    seen: list[np.ndarray] = []
    count = 0 if rng.random() < _EMPTY else int(rng.integers(1, _MOST_SHAPES + 1))
    for _ in range(count):
        shape = _random_shape(rng, size)
        left = [mask & ~shape.mask for mask in seen]
        if any(m.sum() < _LEAST_SEEN * s.mask.sum() for m, s in zip(left, shapes, strict=True)):
            continue
        shapes, seen = [*shapes, shape], [*left, shape.mask]
        picture[shape.mask] = _painted(grid / 4, rng)[shape.mask]
    picture = picture + 0.02 * rng.standard_normal(picture.shape, np.float32)
    pixels = (picture.clip(0, 1) * 255).round().astype(np.uint8)
    pairs = zip(shapes, seen, strict=True)
    return pixels, [_annotation(shape, mask, rng) for shape, mask in pairs]


def _painted(grid: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A texture in two colours at the coordinates ``grid`` ``(n,)`` of both axes: ``(n, n, 3)``."""
    pattern = texture(*np.meshgrid(grid, grid), rng)
    return paint(0.5 + _CONTRAST * (pattern - 0.5), rng)


def _random_shape(rng: np.random.Generator, size: int) -> Shape:
    category = int(rng.choice(list(CATEGORIES)))
    radius = size * np.exp(rng.uniform(*np.log(_RADIUS)))
    centre = rng.uniform(0.8 * radius, size - 0.8 * radius, 2)
    if CATEGORIES[category] == "disc":
        y, x = np.mgrid[:size, :size] + 0.5
        return Shape(category, np.hypot(x - centre[0], y - centre[1]) < 0.85 * radius, None)
    corners = CORNERS[CATEGORIES[category]]
    angle = 2 * np.pi * (np.arange(corners) / corners + rng.random())
    polygon = (centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)).round(2)
    return Shape(category, draw_polygon(polygon, size, size), polygon)


def _annotation(shape: Shape, seen: np.ndarray, rng: np.random.Generator) -> dict[str, Any]:
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    x, y = int(columns[0]), int(rows[0])
    segmentation: Any = {"size": list(seen.shape), "counts": to_text(encode(seen))}
    if shape.polygon is not None and (seen == shape.mask).all():
        segmentation = [shape.polygon.reshape(-1).tolist()]
    crowd = rng.random() < _CROWD
    if crowd:
        segmentation = {"size": list(seen.shape), "counts": encode(seen).tolist()}
    return {
        "category_id": shape.category,
        "bbox": [x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y],
        "area": int(seen.sum()),
        "iscrowd": int(crowd),
        "segmentation": segmentation,
    }


class SyntheticCocoDataModule(CocoDataModule):
    """Pictures of shapes with masks in COCO's format, written once into a cache folder.

    The result is a folder in COCO's format like any other.

    Args:
        root: folder for synthetic data sets; each description gets its own folder below it.
        pictures: numbers of pictures in the train, val and test splits.
        picture_size: height and width of a picture, pixels.
        picture_seed: seed of their content.
        size: see `CocoDataModule`.
        **kwargs: see `CocoDataModule`, except the names of splits.
    """

    def __init__(
        self,
        root: str | Path = "data/synthetic",
        pictures: tuple[int, int, int] = (800, 100, 100),
        picture_size: int = 128,
        picture_seed: int = 0,
        *,
        size: tuple[int, int] = (128, 128),
        **kwargs,
    ) -> None:
        check_numbers("pictures", pictures, "train, val, test")
        if picture_size < 32:
            raise ValueError(f"picture_size must be at least 32, not {picture_size}")
        self.description = {
            "version": VERSION,
            "pictures": list(pictures),
            "size": picture_size,
            "seed": picture_seed,
        }
        folder = described_folder(root, "coco", self.description)
        super().__init__(folder, *SPLITS, size=size, **kwargs)

    def prepare_data(self) -> None:
        """Write the pictures and their annotation unless they exist already."""
        write_once(self.root, self.description, self._write)

    def _write(self, folder: Path) -> None:
        (folder / "annotations").mkdir()
        for number, split in enumerate(SPLITS):
            (folder / split).mkdir()
            images = list(self._write_split(folder / split, number))
            content = {
                "images": [image for image, _ in images],
                "annotations": [
                    {"id": i, **annotation}
                    for i, annotation in enumerate((a for _, group in images for a in group), 1)
                ],
                "categories": [{"id": i, "name": name} for i, name in CATEGORIES.items()],
            }
            file = folder / "annotations" / f"instances_{split}.json"
            file.write_text(json.dumps(content))

    def _write_split(self, folder: Path, split: int) -> Iterator[tuple[dict, list[dict]]]:
        """Write the pictures; yields each with its annotations."""
        size, seed = self.description["size"], self.description["seed"]
        for number in range(self.description["pictures"][split]):
            pixels, annotations = render_picture(np.random.default_rng((seed, split, number)), size)
            name, image_id = f"{number:06d}.jpg", 10 * number + 5
            Image.fromarray(pixels).save(folder / name, quality=95)
            image = {"id": image_id, "file_name": name, "height": size, "width": size}
            yield image, [{"image_id": image_id, **annotation} for annotation in annotations]
