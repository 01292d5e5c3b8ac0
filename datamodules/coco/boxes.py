"""Boxes of COCO's files against the pictures that they are in."""

import numpy as np

MOST_OUT = 0.25  # share of boxes out of their picture that is no accident
CORNERS = 0.95  # share of boxes that could be two corners


def out_of_picture(boxes: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Which boxes reach out of their picture by more than a pixel, bool ``(N,)``.

    Args:
        boxes: x, y, width, height in pixels, float ``(N, 4)``.
        sizes: width and height of the picture of each, ``(N, 2)``.
    """
    first, sides = boxes[:, :2], boxes[:, 2:]
    return (first < -1).any(1) | (first + sides > sizes + 1).any(1)


def look_like_corners(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether boxes seem to be x1, y1, x2, y2 in place of x, y, width, height.

    Args:
        boxes: see `out_of_picture`.
        sizes: likewise.
    """
    if not len(boxes):
        return False
    first, last = boxes[:, :2], boxes[:, 2:]
    corners = (last >= first).all(1) & (last <= sizes + 1).all(1)
    return bool(out_of_picture(boxes, sizes).mean() > MOST_OUT and corners.mean() > CORNERS)
