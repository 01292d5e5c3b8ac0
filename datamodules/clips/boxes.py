"""Where boxes lie after a picture is cropped, scaled and padded.

Arrays of boxes are float ``(n, 4)``: x1, y1, x2, y2 in shares of the picture's width and height,
from its top left corner. Everything here is arithmetic on arrays.
"""

import numpy as np

Box = tuple[int, int, int, int]  # a single one, x1, y1, x2, y2 in pixels of the picture


def crop_boxes(boxes: np.ndarray, crop: Box, width: int, height: int) -> np.ndarray:
    """Express boxes in shares of a crop; they may stick out of it.

    Args:
        boxes: ``(n, 4)`` in shares of the picture.
        crop: in pixels of the picture. It may be larger than the picture: that is padding.
        width: width of the picture, pixels.
        height: height of the picture, pixels.

    Returns:
        ``(n, 4)`` in shares of the crop, not clipped to [0, 1].
    """
    x1, y1, x2, y2 = crop
    scale = np.array([width, height] * 2) / np.array([x2 - x1, y2 - y1] * 2)
    offset = np.array([x1, y1] * 2) / np.array([x2 - x1, y2 - y1] * 2)
    return boxes * scale - offset


def clip_boxes(boxes: np.ndarray) -> np.ndarray:
    """Clip boxes ``(n, 4)`` to the picture; one outside becomes an empty box at its border."""
    return boxes.clip(0.0, 1.0)


def box_areas(boxes: np.ndarray) -> np.ndarray:
    """Shares of the picture's area, ``(...,)``, of boxes ``(..., 4)``."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def visible_shares(boxes: np.ndarray) -> np.ndarray:
    """Share in [0, 1] of each box ``(n, 4)`` that lies within the picture, ``(n,)``.

    No box may be empty.
    """
    return box_areas(clip_boxes(boxes)) / box_areas(boxes)


def jitter_boxes(
    boxes: np.ndarray, most: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Move each side of each box by a random share of the box's size, within the picture.

    A side moves outwards by up to ``most`` or inwards by up to half of that, uniformly.
    VideoMAE-Action-Detection trains with (0.2, 0.1).

    Args:
        boxes: ``(n, 4)`` in shares of the picture.
        most: shares in [0, 1) of a box's width, for its left and right side, and of its height, for
            its top and bottom.
        rng: source of randomness.

    Returns:
        ``(n, 4)`` in shares of the picture, within [0, 1].
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
