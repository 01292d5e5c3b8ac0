"""How the frames of a file are to be turned for display."""

from typing import Any, NamedTuple

import numpy as np


class Orientation(NamedTuple):
    """How a stored frame is displayed: transposed first, then flipped."""

    transposed: bool
    upside_down: bool
    mirrored: bool


def orientation(frame: Any) -> Orientation:
    """That of a decoded frame, from its display matrix.

    To be asked of one frame a file: PyAV keeps one whose side data were read until the garbage
    collector comes.
    """
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation(False, False, False)
    # Stored (column, row) goes to (a * column + c * row, b * column + d * row).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, d < 0, a < 0)
    return Orientation(True, b < 0, c < 0)
