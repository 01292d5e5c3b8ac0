"""Crops that cover a picture, and which of them a person is seen in."""

import math
from collections.abc import Sequence

import numpy as np

from datamodules.clips.boxes import Box, clip_boxes, crop_boxes, visible_shares


def crops_over(width: int, height: int, crop_width: int, crop_height: int) -> list[Box]:
    """Crops all over a picture, at equal steps of at most half a crop.

    Args:
        width: width of the picture, pixels.
        height: height of the picture, pixels.
        crop_width: width of a crop, pixels.
        crop_height: height of a crop, pixels.

    Returns:
        x1, y1, x2, y2 in pixels, those nearest to the centre first.
    """
    xs, ys = _starts(width, crop_width), _starts(height, crop_height)
    crops = [(x, y, x + crop_width, y + crop_height) for y in ys for x in xs]

    def from_centre(crop: Box) -> int:
        x1, y1, x2, y2 = crop
        return (x1 + x2 - width) ** 2 + (y1 + y2 - height) ** 2

    return sorted(crops, key=from_centre)


def _starts(length: int, crop: int) -> list[int]:
    """Where crops begin along one side: an odd number of them, so that one is the centre."""
    steps = 2 * math.ceil(max(0, length - crop) / crop)
    return [math.ceil((length - crop) * i / steps) for i in range(steps + 1)] if steps else [0]


def boxes_in_crops(
    boxes: np.ndarray, crops: Sequence[Box], width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose a crop for each box: the first of those that hold most of it.

    Args:
        boxes: x1, y1, x2, y2 in [0, 1] of the picture, float64 ``(N, 4)``.
        crops: x1, y1, x2, y2 in pixels of the picture.
        width: width of the picture, pixels.
        height: height of the picture, pixels.

    Returns:
        int64 ``(N,)``, the index of each box's crop; float64 ``(N, 4)``, the boxes in [0, 1] of
        their crops, cut off at the border.
    """
    moved = np.stack([crop_boxes(boxes, crop, width, height) for crop in crops])  # (crops, N, 4)
    shares = np.stack([visible_shares(inside) for inside in moved]).round(6)
    chosen = shares.argmax(axis=0)
    return chosen, clip_boxes(moved[chosen, np.arange(len(boxes))])
