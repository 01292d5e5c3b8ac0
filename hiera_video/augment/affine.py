"""Rotating, shearing and shifting all frames of a clip by one affine map, as PIL does.

PIL's ``Image.transform`` with bicubic interpolation uses Keys' kernel with a = -1 (torch's
``grid_sample`` uses -0.75), puts pixel centres at halves, repeats the edge for neighbours outside
the picture, and fills with a plain colour where the point itself lies outside. It truncates to
whole levels. Here the weights are the same, but the products are added in float32, so about one
pixel in a thousand differs by one level. Sources: libImaging's ``Geometry.c``, PIL
``Image.rotate``, timm ``auto_augment.py``.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# RGB levels. The default of timm and PySlowFast, which PySlowFast's recipes keep.
FILL = (128, 128, 128)
# Added before truncation, as rounding errors of the sums would turn a plain surface of level v into
# v - 1.
_MARGIN = 1e-3


def rotate(clip: Tensor, degrees: float, fill: Sequence[int] = FILL) -> Tensor:
    """Rotate counter-clockwise about the centre: uint8 ``(3, T, H, W)`` to the same shape."""
    height, width = clip.shape[-2:]
    x, y = width / 2, height / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x_row, y_row = (cos, -sin, x - cos * x + sin * y), (sin, cos, y - sin * x - cos * y)
    return affine(clip, x_row, y_row, fill)


def shear_x(clip: Tensor, factor: float, fill: Sequence[int] = FILL) -> Tensor:
    """Shift row y left by ``factor * y`` pixels: uint8 ``(3, T, H, W)`` to the same shape."""
    return affine(clip, (1, factor, 0), (0, 1, 0), fill)


def shear_y(clip: Tensor, factor: float, fill: Sequence[int] = FILL) -> Tensor:
    """Shift column x up by ``factor * x`` pixels: uint8 ``(3, T, H, W)`` to the same shape."""
    return affine(clip, (1, 0, 0), (factor, 1, 0), fill)


def translate_x(clip: Tensor, share: float, fill: Sequence[int] = FILL) -> Tensor:
    """Shift left by a share of the width: uint8 ``(3, T, H, W)`` to the same shape."""
    return affine(clip, (1, 0, share * clip.shape[-1]), (0, 1, 0), fill)


def translate_y(clip: Tensor, share: float, fill: Sequence[int] = FILL) -> Tensor:
    """Shift up by a share of the height: uint8 ``(3, T, H, W)`` to the same shape."""
    return affine(clip, (1, 0, 0), (0, 1, share * clip.shape[-2]), fill)


def affine(
    clip: Tensor,
    x_row: tuple[float, float, float],
    y_row: tuple[float, float, float],
    fill: Sequence[int] = FILL,
) -> Tensor:
    """Take the pixel at (x, y) from ``(x_row @ (x, y, 1), y_row @ (x, y, 1))``.

    Coordinates are in pixels; the centre of the first pixel is at 0.5.

    Args:
        clip: uint8 ``(3, T, H, W)``.
        x_row: first row of the matrix.
        y_row: second row of the matrix.
        fill: levels of the three channels where the source lies outside the frame.

    Returns:
        uint8 ``(3, T, H, W)``.
    """
    height, width = clip.shape[-2:]
    options = {"dtype": torch.float64, "device": clip.device}
    y = torch.arange(height, **options)[:, None] + 0.5
    x = torch.arange(width, **options)[None, :] + 0.5
    source_x, source_y = (a * x + b * y + c for a, b, c in (x_row, y_row))  # (H, W)
    outside = (source_x < 0) | (source_x >= width) | (source_y < 0) | (source_y >= height)
    columns, x_weights = _taps(source_x, width, exact=x_row == (1, 0, 0))  # (H, W, 4) or (H, W, 1)
    rows, y_weights = _taps(source_y, height, exact=y_row == (0, 1, 0))
    # (H, W, 4, 1) with (H, W, 1, 4) -> (H * W, 16)
    index = (rows[..., :, None] * width + columns[..., None, :]).flatten(2).flatten(0, 1)
    weights = (y_weights[..., :, None] * x_weights[..., None, :]).flatten(2).flatten(0, 1).float()
    # A row holds a pixel of all channels and frames; a new row is the weighted sum of sixteen.
    pixels = clip.flatten(0, 1).flatten(1).T.float()  # (3, T, H, W) -> (H * W, 3 * T)
    resampled = F.embedding_bag(index, pixels, per_sample_weights=weights, mode="sum")
    levels = resampled.add_(_MARGIN).clamp_(0, 255).to(torch.uint8).T.reshape(clip.shape)
    for channel, level in zip(levels, fill, strict=True):
        channel.masked_fill_(outside, level)
    return levels


def _taps(source: Tensor, size: int, exact: bool) -> tuple[Tensor, Tensor]:
    """The four pixels around each coordinate and their weights (Keys' kernel, a = -1).

    Args:
        source: float64 ``(...)``, coordinates in pixels.
        size: pixels along this axis; neighbours beyond them repeat the edge.
        exact: the coordinates are centres of pixels, so that one pixel suffices.

    Returns:
        int32 and float64 ``(..., 4)``, or ``(..., 1)`` for exact coordinates.
    """
    first = (source - 0.5).floor()
    if exact:
        return first[..., None].int(), torch.ones_like(source)[..., None]
    d = source - 0.5 - first  # distance from the second of the four pixels, in [0, 1)
    offset = torch.arange(-1, 3, device=source.device)
    index = (first[..., None] + offset).clamp(0, size - 1).int()
    weights = [
        d * (d * (2 - d) - 1),
        d * d * (d - 2) + 1,
        d * (d * (1 - d) + 1),
        d * d * (d - 1),
    ]
    return index, torch.stack(weights, dim=-1)
