"""Sizes of pictures with objects: large-scale jitter in training, the longer side in evaluation."""

import math
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from datamodules.coco.segmentation import FARTHEST, draw, draw_polygons, polygons_of

GREY = 128  # of the padding: about the mean, which detectron2 pads with after normalising


class Jitter(NamedTuple):
    """How a picture and its objects are mirrored, then scaled, then cropped.

    Attributes:
        original: height and width of the picture, pixels.
        mirrored: whether left and right change places.
        scaled: height and width after scaling.
        corner: row and column of the crop's upper left pixel.
        size: height and width of the crop.
    """

    original: tuple[int, int]
    mirrored: bool
    scaled: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]

    def picture(self, image: Tensor) -> Tensor:
        """Move a `torchvision.tv_tensors.Image`, uint8 ``(3, h, w)``; the result has `size`."""
        image = F.horizontal_flip(image) if self.mirrored else image
        return F.crop(F.resize(image, list(self.scaled)), *self.corner, *self.size)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Move points, x and y in pixels: float64 ``(n, 2)``."""
        (height, width), (top, left) = self.original, self.corner
        x = width - points[:, 0] if self.mirrored else points[:, 0]
        x, y = x * (self.scaled[1] / width), points[:, 1] * (self.scaled[0] / height)
        return np.stack([x - left, y - top], axis=1)

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """Move a mask, bool ``(h, w)`` of the picture: each pixel is the one its centre lies in."""
        rows, columns = (
            ((np.arange(length) + start + 0.5) * (whole / scaled)).astype(np.int64)
            for length, start, whole, scaled in zip(
                self.size, self.corner, self.original, self.scaled, strict=True
            )
        )
        columns = mask.shape[1] - 1 - columns if self.mirrored else columns
        return mask[np.ix_(rows, columns)]

    def object(self, segmentation: Any) -> tuple[np.ndarray, np.ndarray]:
        """Move the ``segmentation`` of an annotation, as `draw` takes it.

        Corners of polygons are moved, and what is between them is drawn then: edges lie where the
        picture has them, and boxes go around corners and not around pixels, as in detectron2.

        Returns:
            The mask, bool ``(h, w)``; the box, x1, y1, x2, y2 in pixels, float64 ``(4,)``. An
            object of which nothing is left has an empty mask and a box of zeros.

        Raises:
            ValueError: as `draw`.
        """
        polygons = [] if isinstance(segmentation, dict) else polygons_of(segmentation)
        polygons = [self.points(polygon) for polygon in polygons]
        if polygons and all(np.abs(polygon).max() <= FARTHEST for polygon in polygons):
            mask, corners = draw_polygons(polygons, *self.size), np.concatenate(polygons)
        else:
            whole = draw(segmentation, *self.original)
            mask, corners = self.mask(whole), self.points(_box_of(whole).reshape(2, 2))
        return mask, _box_around(corners, mask)


def large_scale_jitter(
    original: tuple[int, int],
    size: tuple[int, int],
    scale: tuple[float, float],
    rng: np.random.Generator,
) -> Jitter:
    """Mirror half of the pictures, scale them at random, and crop what is too large.

    Ghiasi et al., "Simple Copy-Paste", 2021; the steps are those of detectron2's ViTDet.

    Args:
        original: height and width of the picture, pixels.
        size: the greatest height and width of the result.
        scale: least and greatest factor; with 1 the picture just fits into `size`.
        rng: all randomness.
    """
    mirrored, factor, *place = rng.random(4)
    height, width = scaled = _scaled(original, size, scale[0] + factor * (scale[1] - scale[0]))
    top, left = (
        round(share * max(0, n - m)) for share, n, m in zip(place, scaled, size, strict=True)
    )
    crop = min(height, size[0]), min(width, size[1])
    return Jitter(original, bool(mirrored < 0.5), scaled, (top, left), crop)


def fit(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Scale a picture, uint8 ``(3, h, w)``, so that it just fits into `size`."""
    height, width = image.shape[-2:]
    return F.resize(image, list(_scaled((height, width), size, 1.0)))


def pad(image: Tensor, size: tuple[int, int], value: int) -> Tensor:
    """Pad ``(n, h, w)`` at the right and at the bottom to `size`."""
    height, width = image.shape[-2:]
    return F.pad(image, [0, 0, size[1] - width, size[0] - height], fill=value)


def _box_of(mask: np.ndarray) -> np.ndarray:
    """x1, y1, x2, y2 around the pixels of a mask, float64 ``(4,)``; zeros if it has none."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(rows):
        return np.zeros(4)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)


def _box_around(corners: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The box around an object's corners ``(n, 2)``, or around what a crop has left of it.

    A corner that is cut off may have been the end of the object in the other direction, too. Then
    its mask, which is exact to half a pixel, tells where it ends now.
    """
    left = _box_of(mask)
    if not left.any():
        return left
    size = np.array(mask.shape[::-1])
    around = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
    inside = np.clip(around, 0, np.tile(size, 2))
    is_whole = np.array_equal(around, inside)
    return np.where(is_whole | (np.abs(inside - left) < 1), inside, left)


def _scaled(original: tuple[int, int], size: tuple[int, int], factor: float) -> tuple[int, int]:
    """Height and width of a picture, of which `factor` 1 just fits into `size`."""
    factor *= min(size[0] / original[0], size[1] / original[1])
    height, width = (max(1, math.floor(n * factor + 0.5)) for n in original)
    return height, width
