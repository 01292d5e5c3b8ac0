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
    return np.asarray(((first < -1) | (first + sides > sizes + 1)).any(1))


def are_ordered(boxes: np.ndarray) -> bool:
    """Whether nearly all boxes could be x1, y1, x2, y2, float ``(N, 4)``, of any picture."""
    return len(boxes) > 0 and bool((boxes[:, 2:] >= boxes[:, :2]).all(1).mean() > CORNERS)


def look_like_corners(boxes: np.ndarray, sizes: np.ndarray) -> bool:
    """Whether boxes seem to be x1, y1, x2, y2 in place of x, y, width, height.

    Args:
        boxes: see `out_of_picture`.
        sizes: likewise.
    """
    if not are_ordered(boxes):
        return False
    inside = (boxes[:, 2:] <= sizes + 1).all(1)
    return bool(out_of_picture(boxes, sizes).mean() > MOST_OUT and inside.mean() > CORNERS)


def num_found(objects: np.ndarray, boxes: np.ndarray) -> int:
    """How many objects of a picture have a box with an IoU of at least 0.5.

    Args:
        objects: x1, y1, x2, y2, float ``(n, 4)``.
        boxes: likewise, ``(m, 4)``.
    """
    if not len(objects) or not len(boxes):
        return 0
    low = np.maximum(objects[:, None, :2], boxes[None, :, :2])  # (n, m, 2)
    high = np.minimum(objects[:, None, 2:], boxes[None, :, 2:])
    common = (high - low).clip(0).prod(2)  # (n, m)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (objects, boxes)]
    return int((3 * common >= areas[0][:, None] + areas[1]).any(1).sum())
