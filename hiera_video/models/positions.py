"""Position embeddings on another grid of tokens.

Attention within mask units learns a pattern of one unit's size, which the embedding repeats in each
unit. Stretching the whole embedding would stretch that pattern, and no unit would see what it was
trained with (Bolya et al., "Window Attention is Bugged: How not to Interpolate Position
Embeddings", arXiv:2311.05613). So the pattern is tiled as it is, and only the rest is resized.

Legend: C channels; H' W' a grid of tokens; h w tokens of a mask unit.
"""

import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, ...]


def resize_windows(x: Tensor, size: Grid, unit: Grid) -> Tensor:
    """Resize an embedding and keep the pattern within mask units as it was.

    The pattern is the mean over all units. It stays exactly the same. What differs from it is
    resized (bicubic) and shifted so that its own mean over units is zero again.

    Args:
        x: float ``(1, C, H', W')``, of a grid that is a multiple of `unit`.
        size: the new grid ``(H', W')``, a multiple of `unit`.
        unit: ``(h, w)``.

    Returns:
        ``(1, C, *size)``.
    """
    within = mean_unit(x, unit)  # (1, C, h, w)
    rest = resize_bicubic(x - tile(within, tuple(x.shape[-2:])), size)  # (1, C, *size)
    return rest + tile(within - mean_unit(rest, unit), size)


def resize_bicubic(x: Tensor, size: Grid) -> Tensor:
    """Resize ``(N, C, H', W')`` to ``(N, C, *size)``; returned as it is if it has that size."""
    # The antialiased kernel is the sharper one; it averages only where it shrinks.
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bicubic", antialias=True)


def mean_unit(x: Tensor, unit: Grid) -> Tensor:
    """``(1, C, H', W')`` to the mean over its units ``(1, C, h, w)``."""
    h, w = unit
    return x.unflatten(3, (-1, w)).unflatten(2, (-1, h)).mean(dim=(2, 4))


def tile(within: Tensor, grid: Grid) -> Tensor:
    """``(1, C, h, w)`` repeated to ``(1, C, H', W')``."""
    return within.tile([n // u for n, u in zip(grid, within.shape[-2:], strict=True)])
