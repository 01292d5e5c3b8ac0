"""Masks of COCO's annotations: polygons, drawn as pycocotools draws them, and run lengths."""

from typing import Any

import numpy as np

from datamodules.coco.rle import counts_between, decode, encode, from_text, to_text

_FINE = 5  # steps of a pixel in which a boundary is drawn


def draw(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Draw the ``segmentation`` of an annotation.

    Args:
        segmentation: polygons, each ``[x1, y1, x2, y2, ...]`` in pixels, which together make the
            object; or ``{"size": [height, width], "counts": ...}`` with the lengths of runs as a
            list or a text.
        height: of the picture.
        width: of the picture.

    Returns:
        bool ``(height, width)``.

    Raises:
        ValueError: it is something else, or of a picture of another size.
    """
    if isinstance(segmentation, dict):
        return decode(_counts(segmentation, height, width), height, width)
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("no polygons and no run lengths")
    mask = np.zeros((height, width), bool, order="F")  # as polygons are drawn
    for polygon in segmentation:
        mask |= draw_polygon(_points(polygon), height, width)
    return mask


def run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A ``segmentation`` as `draw` takes it, in the form of run lengths as text."""
    if isinstance(segmentation, dict):
        counts = _counts(segmentation, height, width)
    else:
        counts = encode(draw(segmentation, height, width))
    return {"size": [height, width], "counts": to_text(counts)}


def draw_polygon(points: np.ndarray, height: int, width: int) -> np.ndarray:
    """Draw a closed polygon.

    Args:
        points: corners, x and y in pixels, float64 ``(n, 2)``; may lie outside of the picture.
        height: of the picture.
        width: of the picture.

    Returns:
        bool ``(height, width)``, equal to what pycocotools draws.
    """
    x, y = _boundary(points)
    # Columns of pixels are entered and left where the boundary crosses their middle.
    crosses = np.flatnonzero(np.diff(x))
    before, after = x[crosses], x[crosses + 1]
    column = (np.where(after < before, after, after - 1) + 0.5) / _FINE - 0.5
    in_picture = (column == np.floor(column)) & (column >= 0) & (column <= width - 1)
    row = (np.minimum(y[crosses], y[crosses + 1]) + 0.5) / _FINE - 0.5
    row = np.ceil(np.clip(row, 0, height))[in_picture].astype(np.int64)
    changes = column[in_picture].astype(np.int64) * height + row
    return decode(counts_between(changes, height * width), height, width)


def _boundary(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points along the boundary, so dense that each coordinate changes by at most 1.

    Args:
        points: as in `draw_polygon`.

    Returns:
        x and y in fifths of a pixel, int64 ``(m,)`` each.
    """
    start = np.trunc(_FINE * points + 0.5).astype(np.int64)
    end = np.roll(start, -1, axis=0)
    moved = (start != end).any(axis=1)
    start, end = start[moved], end[moved]
    longer = np.abs(end - start).argmax(axis=1)  # axis of each side; x if both are as long
    rows = np.arange(len(longer))
    backwards = start[rows, longer] > end[rows, longer]
    # Each side is drawn from its lower end, so that polygons that share it also share its points.
    low, high = np.where(backwards[:, None], [end, start], [start, end])
    length = high[rows, longer] - low[rows, longer]
    slope = (high[rows, 1 - longer] - low[rows, 1 - longer]) / length
    side = np.repeat(rows, length + 1)
    step = np.arange(len(side)) - np.repeat(np.cumsum(length + 1) - length - 1, length + 1)
    step = np.where(backwards[side], length[side] - step, step)
    along = low[rows, longer][side] + step
    across = low[rows, 1 - longer][side] + slope[side] * step + 0.5
    across = np.trunc(across).astype(np.int64)
    x_longer = longer[side] == 0
    return np.where(x_longer, along, across), np.where(x_longer, across, along)


def _points(polygon: Any) -> np.ndarray:
    """The corners of a polygon, float64 ``(n, 2)``."""
    try:
        values = np.asarray(polygon, np.float64)
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.ndim != 1 or len(values) < 6 or len(values) % 2 or not np.isfinite(values).all():
        raise ValueError("a polygon must be [x1, y1, x2, y2, ...] with at least three corners")
    return values.reshape(-1, 2)


def _counts(segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """The lengths of runs, int64 ``(runs,)``."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, list) or list(size) != [height, width]:
        raise ValueError(f"run lengths of size {size} in a picture of [{height}, {width}]")
    if isinstance(counts, str | bytes):
        return from_text(counts)
    if isinstance(counts, list) and all(isinstance(n, int) for n in counts):
        return np.array(counts, np.int64)
    raise ValueError("run lengths must have counts, a list of numbers or a text")
