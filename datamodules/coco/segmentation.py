"""Masks of COCO's annotations: polygons, drawn as pycocotools draws them, and run lengths."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np

from datamodules.coco.rle import check_runs, counts_between, decode, encode, from_text, to_text

FARTHEST = 1_000_000  # pixels of a corner from that of the picture; boundaries are drawn in full
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
        ValueError: see `check_mask`.
    """
    if isinstance(segmentation, dict):
        return decode(_counts(segmentation, height, width), height, width)
    return draw_polygons(polygons_of(segmentation), height, width)


def check_mask(segmentation: Any, height: int, width: int) -> None:
    """See that `draw` can draw a ``segmentation``, without drawing it.

    Raises:
        ValueError: it is neither polygons nor run lengths, or of a picture of another size.
    """
    if isinstance(segmentation, dict):
        _counts(segmentation, height, width)
    else:
        polygons_of(segmentation)


def polygons_of(segmentation: Any) -> list[np.ndarray]:
    """The corners of each polygon of a ``segmentation``, x and y in pixels: float64 ``(n, 2)``.

    Raises:
        ValueError: as `check_mask`.
    """
    if not isinstance(segmentation, list) or not segmentation:
        raise ValueError("no polygons and no run lengths")
    return [_points(polygon) for polygon in segmentation]


def has_mask(row: Mapping[str, Any]) -> bool:
    """Whether an annotation or a detection has a ``segmentation``; null and ``[]`` are none."""
    return row.get("segmentation") not in (None, [])


def run_lengths(segmentation: Any, height: int, width: int) -> dict[str, Any]:
    """A ``segmentation`` as `draw` takes it, in the form of run lengths as text."""
    if isinstance(segmentation, dict):
        counts = _counts(segmentation, height, width)
    else:
        counts = encode(draw(segmentation, height, width))
    return {"size": [height, width], "counts": to_text(counts)}


def draw_polygons(polygons: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Draw what at least one of several polygons covers; each is as in `draw_polygon`."""
    mask = np.zeros((height, width), bool, order="F")  # as polygons are drawn
    for points in polygons:
        mask |= draw_polygon(points, height, width)
    return mask


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
    if not isinstance(polygon, list):
        raise ValueError("polygons must be a list of lists, [[x1, y1, x2, y2, ...], ...]")
    try:
        values = np.array(polygon)
    except ValueError:  # lists of several lengths
        values = np.zeros(0)
    is_flat = values.dtype.kind in "if" and values.ndim == 1
    if not is_flat or len(values) < 6 or len(values) % 2:
        raise ValueError("a polygon must be [x1, y1, x2, y2, ...] with at least three corners")
    if not (np.abs(values) <= FARTHEST).all():
        raise ValueError(f"a corner of a polygon is not within {FARTHEST:,} pixels")
    return values.astype(np.float64).reshape(-1, 2)


def _counts(segmentation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """The lengths of runs, int64 ``(runs,)``."""
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not _are_ints(size) or size != [height, width]:
        raise ValueError(f"run lengths of size {size} in a picture of [{height}, {width}]")
    if isinstance(counts, str | bytes):
        lengths = from_text(counts)
    elif _are_ints(counts):
        largest = max(map(abs, counts), default=0)
        if largest > height * width:
            raise ValueError(f"a run has {largest} pixels, the picture {height} x {width}")
        lengths = np.array(counts, np.int64)
    else:
        raise ValueError("run lengths must have counts, a list of whole numbers or a text")
    check_runs(lengths, height, width)
    return lengths


def _are_ints(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(n) is int for n in values)
