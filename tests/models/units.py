"""Which pixels mask units cover, by repeating."""

from collections.abc import Sequence

from torch import Tensor


def pixels_of_units(mask: Tensor, unit_grid: Sequence[int], video: Tensor) -> Tensor:
    """Spread a mask of units over pixels.

    Args:
        mask: bool ``(B, U)``, units in raster order with time slowest.
        unit_grid: units along each axis.
        video: ``(B, 3, T, H, W)``, images ``(B, 3, H, W)``.

    Returns:
        bool ``(B, 1, T, H, W)``, images ``(B, 1, H, W)``.
    """
    mask = mask.reshape(len(mask), 1, *unit_grid)
    for axis, units in enumerate(unit_grid, start=2):
        mask = mask.repeat_interleave(video.shape[axis] // units, dim=axis)
    return mask
