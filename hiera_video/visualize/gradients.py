"""Histograms of oriented gradients as pictures: each cell a star of lines along its edges."""

import math

import torch
from torch import Tensor

CELL = 8  # side of a cell, pixels


def histogram_pictures(histograms: Tensor) -> Tensor:
    """Draw each bin of a cell as a line, the brighter the more of the cell's gradient it has.

    A line runs along the edge, at a right angle to the gradient. The histograms of red, green and
    blue are drawn in their colours, so that a star is grey where the three agree.

    Args:
        histograms: float ``(..., 3, bins, rows, columns)``, such as `HOGTarget.histograms` of
            frames in RGB; a bin begins where `HOGTarget` lets it begin.

    Returns:
        uint8 ``(..., 3, rows * 8, columns * 8)``.
    """
    lines = _lines(histograms.shape[-3]).to(histograms.device)  # (bins, 8, 8)
    # Where lines cross, the brightest counts, else every centre would be white.
    stars = torch.stack(
        [
            values[..., None, None] * line
            for values, line in zip(histograms.clamp(0, 1).unbind(-3), lines, strict=True)
        ]
    ).amax(0)  # (..., 3, rows, columns, 8, 8)
    stars = stars.transpose(-3, -2)  # (..., 3, rows, 8, columns, 8)
    pictures = stars.flatten(-4, -3).flatten(-2, -1)  # (..., 3, rows * 8, columns * 8)
    return (pictures * 255).round().to(torch.uint8)


def _lines(bins: int) -> Tensor:
    """A soft line through the middle of a cell for each bin, ``(bins, 8, 8)`` in [0, 1]."""
    offset = torch.arange(CELL) - (CELL - 1) / 2
    x, y = offset[None, :], offset[:, None]
    angles = (torch.arange(bins) + 0.5) * (math.pi / bins)  # of the gradient, from the y axis
    return torch.stack(
        [(1 - (x * math.sin(a) + y * math.cos(a)).abs()).clamp(min=0) for a in angles.tolist()]
    )
