"""How the frames of a file must be turned for display."""

from typing import Any, NamedTuple

import numpy as np


class Orientation(NamedTuple):
    """How a stored frame is displayed: transposed first, then flipped.

    Attributes:
        transposed: rows become columns.
        upside_down: the order of rows is reversed.
        mirrored: the order of columns is reversed.
    """

    transposed: bool
    upside_down: bool
    mirrored: bool


def orientation(frame: Any) -> Orientation:
    """Read a decoded frame's orientation from its display matrix.

    Ask only one frame of a file: PyAV keeps a frame whose side data were read in memory until the
    garbage collector runs.
    """
    try:
        matrix = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # data of a kind that PyAV does not know, such as the views of MV-HEVC
        quarters = round(frame.rotation / 90) % 4  # counterclockwise
        return Orientation(quarters % 2 == 1, quarters in (1, 2), quarters in (2, 3))
    if matrix is None:
        return Orientation(False, False, False)
    # Stored (column, row) goes to (a * column + c * row, b * column + d * row).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(False, d < 0, a < 0)
    return Orientation(True, b < 0, c < 0)
