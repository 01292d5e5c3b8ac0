"""Where boxes lie after a crop, a change of size and padding.

Boxes are ``(n, 4)`` arrays of x1, y1, x2, y2 in shares of a picture's width and height; 0, 0 is its
top left corner. Everything here is arithmetic on arrays.
"""

import numpy as np

Box = tuple[int, int, int, int]


def crop_boxes(boxes: np.ndarray, crop: Box, width: int, height: int) -> np.ndarray:
    """Boxes in shares of a crop, of which they may stick out.

    Args:
        boxes: in shares of the picture.
        crop: x1, y1, x2, y2 in pixels of the picture. It may be larger than that: padding.
        width: of the picture, pixels.
        height: of the picture, pixels.
    """
    x1, y1, x2, y2 = crop
    scale = np.array([width, height] * 2) / np.array([x2 - x1, y2 - y1] * 2)
    offset = np.array([x1, y1] * 2) / np.array([x2 - x1, y2 - y1] * 2)
    return boxes * scale - offset


def clip_boxes(boxes: np.ndarray) -> np.ndarray:
    """The parts of boxes within the picture; those outside become empty ones at its border."""
    return boxes.clip(0.0, 1.0)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Shares of the picture's area, ``(...,)``, of boxes ``(..., 4)``."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def visible_shares(boxes: np.ndarray) -> np.ndarray:
    """Share of each box that lies within the picture, in [0, 1], ``(n,)``."""
    return box_areas(clip_boxes(boxes)) / box_areas(boxes)


def jitter_boxes(
    boxes: np.ndarray, most: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Move each side of each box by a random share of the box's size, within the picture.

    A side moves outwards by up to ``most`` and inwards by up to half of that, uniformly.
    VideoMAE-Action-Detection trains with (0.2, 0.1).

    Args:
        boxes: in shares of the picture.
        most: of the width for left and right sides, of the height for top and bottom, in [0, 1).
        rng: source of randomness.
    """
    size = np.stack([boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]] * 2, axis=1)  # (n, 4)
    outwards = rng.uniform(-0.5, 1.0, boxes.shape) * np.array(most * 2)
    return clip_boxes(boxes + np.array([-1, -1, 1, 1]) * outwards * size)


def intersection_over_union(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of boxes ``(..., 4)`` with other boxes that broadcast to them: ``(...,)`` in [0, 1].

    For all pairs of n and m boxes, pass ``boxes[:, None]`` and ``others[None]``: ``(n, m)``. The
    areas of a pair must not add up to 0.
    """
    low = np.maximum(boxes[..., :2], others[..., :2])
    high = np.minimum(boxes[..., 2:], others[..., 2:])
    common = (high - low).clip(0).prod(axis=-1)
    return common / (box_areas(boxes) + box_areas(others) - common)
