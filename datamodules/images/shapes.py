"""Pictures of shapes, whose outline is the class: a small data set that writes itself.

Place, size, angle and colours have the same distribution in every class.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from datamodules.arguments import check_numbers
from datamodules.images.folder import ImageFolderDataModule
from datamodules.manifests.splitting import SPLITS
from datamodules.synthetic import described_folder, in_threads, write_once

VERSION = 1  # of what `draw_shape` draws; a new version is a new data set
FINE = 4  # outlines are drawn so many times larger, so that borders are soft
TURN = 0.4  # radians by which a shape is turned at most


def _star(points: int, inner: float) -> np.ndarray:
    """Corners ``(2 * points, 2)`` at radius 1 and ``inner`` in turn."""
    angles = np.arange(2 * points) * np.pi / points
    radius = np.where(np.arange(2 * points) % 2, inner, 1.0)
    return radius[:, None] * np.stack([np.sin(angles), -np.cos(angles)], axis=1)


def _regular(corners: int) -> np.ndarray:
    return _star(corners, np.cos(np.pi / corners))


_ARM = 0.3
_CROSS = np.array(
    [(a, b) for a, b in ((_ARM, 1), (_ARM, _ARM), (1, _ARM), (1, -_ARM), (_ARM, -_ARM))]
    + [(_ARM, -1), (-_ARM, -1), (-_ARM, -_ARM), (-1, -_ARM), (-1, _ARM), (-_ARM, _ARM), (-_ARM, 1)]
)
_ROUND = _regular(64)
_HALF = _ROUND[: len(_ROUND) // 2 + 1] - np.array([0.4, 0.0])
# Outlines of the classes, each polygon with corners (n, 2) within the unit circle, and whether the
# middle is left open.
SHAPES: dict[str, tuple[np.ndarray, bool]] = {
    "circle": (_ROUND, False),
    "cross": (_CROSS, False),
    "half": (_HALF, False),
    "ring": (_ROUND, True),
    "square": (_regular(4), False),
    "star": (_star(5, 0.4), False),
    "triangle": (_regular(3), False),
    "window": (_regular(4), True),
}
CLASS_NAMES = tuple(SHAPES)
OPEN = 0.6  # size of what is left open, as a share of the shape's


def _area(name: str) -> float:
    """Area of a shape whose corners are within the unit circle."""
    corners, is_open = SHAPES[name]
    (x, y), (next_x, next_y) = corners.T, np.roll(corners, -1, axis=0).T
    return abs(float((x * next_y - next_x * y).sum())) / 2 * (1 - OPEN**2 * is_open)


# All have the area of the smallest, so that a picture's brightness does not tell the class.
_SHRINK = {name: (min(map(_area, SHAPES)) / _area(name)) ** 0.5 for name in SHAPES}


def draw_shape(name: str, rng: np.random.Generator, size: int = 64) -> np.ndarray:
    """Draw one picture.

    Args:
        name: one of CLASS_NAMES.
        rng: source of randomness.
        size: height and width, pixels.

    Returns:
        uint8 ``(size, size, 3)``, RGB.
    """
    corners, is_open = SHAPES[name]
    radius = size * rng.uniform(0.25, 0.42) * _SHRINK[name]
    centre = size * rng.uniform(0.44, 0.56, 2)  # x, y
    angle = rng.uniform(-TURN, TURN)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    mask = Image.new("L", (size * FINE, size * FINE))
    pen = ImageDraw.Draw(mask)
    for scale, fill in ((1.0, 255), (OPEN, 0))[: 1 + is_open]:
        places = (corners @ turn * radius * scale + centre) * FINE
        pen.polygon([(float(x), float(y)) for x, y in places], fill=fill)
    alpha = np.asarray(mask.reduce(FINE), np.float32)[..., None] / 255  # (size, size, 1)
    bright, dark = rng.uniform(0.6, 1, 3), rng.uniform(0, 0.4, 3)  # colours
    picture = alpha * bright + (1 - alpha) * dark + 0.03 * rng.standard_normal((size, size, 3))
    return (picture.clip(0, 1) * 255).round().astype(np.uint8)


class SyntheticShapesDataModule(ImageFolderDataModule):
    """Eight classes of shapes in JPEG files, written once into a cache folder.

    Once written, it is a folder of class folders like any other.

    Args:
        root: folder for such data sets; each description gets its own folder below it.
        images: numbers of pictures in the train, val and test split, multiples of 8.
        image_size: height and width of a picture, pixels.
        image_seed: seed of the pictures' content.
        **kwargs: see `ImageFolderDataModule`.
    """

    def __init__(
        self,
        root: str | Path = "data/synthetic",
        images: tuple[int, int, int] = (1600, 160, 320),
        image_size: int = 64,
        image_seed: int = 0,
        **kwargs,
    ) -> None:
        check_numbers("images", images, "train, val, test", len(SHAPES))
        self.description = {
            "version": VERSION,
            "images": list(images),
            "size": image_size,
            "seed": image_seed,
        }
        super().__init__(root=described_folder(root, "shapes", self.description), **kwargs)

    def prepare_data(self) -> None:
        """Write the pictures unless they exist already."""
        write_once(self.root, self.description, self._write)

    def _write(self, folder: Path) -> None:
        for name in SPLITS:
            for shape in CLASS_NAMES:
                (folder / name / shape).mkdir(parents=True, exist_ok=True)
        jobs = [(s, n) for s, count in enumerate(self.description["images"]) for n in range(count)]

        def write(job: tuple[int, int]) -> None:
            split, number = job
            shape = CLASS_NAMES[number % len(CLASS_NAMES)]
            rng = np.random.default_rng((self.description["seed"], split, number))
            pixels = draw_shape(shape, rng, self.description["size"])
            path = folder / SPLITS[split] / shape / f"{number:05d}.jpg"
            Image.fromarray(pixels).save(path, "JPEG", quality=95)

        in_threads(write, jobs)
