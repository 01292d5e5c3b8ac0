"""Which mask units are hidden: functions of random numbers, so that a sample's mask is its seed's.

- ``random``: any units (Hiera; MAE, arXiv:2111.06377).
- ``tube``: the same places in every time step (VideoMAE, arXiv:2203.12602).
- ``block``: space-time cuboids one after the other, until enough is hidden (MaskFeat,
  arXiv:2112.09133). There cuboids are drawn until they suffice; here `NUM_CUBOIDS` are drawn, and
  what they leave over is hidden at random, so that the count is exact and nothing waits.

Legend: B batch, U mask units in raster order with time slowest, K of them kept, T time steps of S
units each; images have one step.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MASKS = ("random", "tube", "block")
# Together they cover 97 % of an 8x7x7 grid on average. A cuboid needs six random numbers.
NUM_CUBOIDS = 64


def num_kept(mask: str, unit_grid: Sequence[int], ratio: float) -> int:
    """Units kept: ``int(U * (1 - ratio))``, and with ``tube`` ``T * int(S * (1 - ratio))``.

    In floating point, as the published code counts: 3 of 40 at 0.9.

    Raises:
        ValueError: the ratio is outside (0, 1), it keeps no unit or all, or no such mask.
    """
    check_mask(mask)
    if not 0 < ratio < 1:
        raise ValueError(f"mask_ratio must be in (0, 1), not {ratio}")
    steps = _steps(unit_grid) if mask == "tube" else 1
    units = math.prod(unit_grid) // steps
    keep = int(units * (1 - ratio))
    check_num_kept(keep, units)
    return keep * steps


def num_noise(mask: str, unit_grid: Sequence[int]) -> int:
    """Random numbers that a mask is made of."""
    check_mask(mask)
    units = math.prod(unit_grid)
    if mask == "tube":
        return units // _steps(unit_grid)
    return units + 6 * NUM_CUBOIDS if mask == "block" else units


def kept_units(mask: str, noise: Tensor, unit_grid: Sequence[int], keep: int) -> Tensor:
    """Kept units of the mask of a name in `MASKS`.

    Args:
        mask: the name.
        noise: in [0, 1), ``(B, num_noise(mask, unit_grid))``.
        unit_grid: units along each axis, ``(T, H, W)`` or ``(H, W)``.
        keep: K, from `num_kept`.

    Returns:
        int64 ``(B, K)``, ascending; computed without waiting for the device.
    """
    check_mask(mask)
    if mask == "tube":
        return tube_units(noise, keep, _steps(unit_grid))
    return block_units(noise, keep, unit_grid) if mask == "block" else random_units(noise, keep)


def random_units(noise: Tensor, keep: int) -> Tensor:
    """The K units with the least noise ``(B, U)``: int64 ``(B, K)``, ascending."""
    return noise.argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values


def tube_units(noise: Tensor, keep: int, steps: int) -> Tensor:
    """The K / T places with the least noise ``(B, S)``, in each of T steps: int64 ``(B, K)``."""
    places = random_units(noise, keep // steps)  # (B, K/T)
    step = torch.arange(steps, device=noise.device) * noise.shape[1]
    return (step[:, None] + places[:, None]).flatten(1)  # (B, K)


def block_units(noise: Tensor, keep: int, unit_grid: Sequence[int]) -> Tensor:
    """What is left when cuboids hide U - K units; of the last cuboid some units may be left.

    Along time a cuboid has 1 to T units, along the other axes a quarter to three quarters of them,
    each length as likely. Its place is uniform among those where it hides anything: it may reach
    over the border, else units at the border would be kept far more often than others.

    Args:
        noise: in [0, 1), ``(B, 6 * NUM_CUBOIDS + U)``: sizes and places of cuboids, and the order
            of the units of one cuboid, and of those in none.
        keep: K.
        unit_grid: ``(T, H, W)`` or ``(H, W)``.

    Returns:
        int64 ``(B, K)``, ascending.
    """
    noise = noise.double()  # the cuboid plus the noise of a unit is exact, and no product rounds up
    sizes, places, order = noise.tensor_split([3 * NUM_CUBOIDS, 6 * NUM_CUBOIDS], dim=1)
    sizes, places = sizes.unflatten(1, (-1, 3)), places.unflatten(1, (-1, 3))  # (B, N, axis)
    grid = (_steps(unit_grid), *unit_grid[-2:])
    covered = torch.ones(1, 1, 1, 1, 1, dtype=torch.bool, device=noise.device)
    for axis, length in enumerate(grid):
        least = 1 if axis == 0 else math.ceil(length / 4)
        most = length if axis == 0 else math.ceil(length * 3 / 4)
        size = least + (sizes[..., axis] * (most - least + 1)).floor()  # (B, N)
        start = (places[..., axis] * (length + size - 1)).floor() - size + 1  # (B, N)
        unit = torch.arange(length, device=noise.device)
        inside = (unit >= start[..., None]) & (unit < (start + size)[..., None])  # (B, N, length)
        shape = [length if a == axis else 1 for a in range(3)]
        covered = covered & inside.reshape(*inside.shape[:2], *shape)  # (B, N, T, H, W) at last
    number = torch.arange(NUM_CUBOIDS, device=noise.device)[:, None]
    first = torch.where(covered.flatten(2), number, NUM_CUBOIDS).amin(dim=1)  # (B, U)
    hidden_first = (first + order).argsort(dim=1, stable=True)  # (B, U)
    return hidden_first[:, first.shape[1] - keep :].sort(dim=1).values


def check_mask(mask: str) -> None:
    """Raises a ValueError if there is no mask of that name."""
    if mask not in MASKS:
        raise ValueError(f"mask must be one of {', '.join(MASKS)}, not {mask!r}")


def check_num_kept(keep: int, units: int) -> None:
    """Raises a ValueError if no unit is kept or none hidden."""
    if not 0 < keep < units:
        raise ValueError(
            f"{keep} of {units} mask units would be kept; at least one must be kept and one hidden"
        )


def _steps(unit_grid: Sequence[int]) -> int:
    return unit_grid[0] if len(unit_grid) == 3 else 1
