"""Which mask units are hidden, as functions of random numbers: a seed decides a sample's mask.

- ``random``: any units (Hiera; MAE, arXiv:2111.06377).
- ``tube``: the same places in every time step (VideoMAE, arXiv:2203.12602).
- ``block``: cuboids of space and time, one after the other, until enough units are hidden
  (MaskFeat, arXiv:2112.09133). MaskFeat draws cuboids until they suffice. Here `NUM_CUBOIDS` are
  drawn, and if they do not suffice, further units are hidden at random. So the number of hidden
  units is exact, and nothing waits for the device.

A decoder need not predict all that is hidden: `running_cell`.

Legend: B batch, U mask units in raster order with time slowest, K of them kept, T time steps of S
units each; images have one step.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

MASKS = ("random", "tube", "block")
# Together they cover 97 % of an 8x7x7 grid on average. A cuboid takes six random numbers: a size
# and a place along each of three axes.
NUM_CUBOIDS = 64


def num_kept(mask: str, unit_grid: Sequence[int], ratio: float) -> int:
    """K, the number of units kept: ``int(U * (1 - ratio))``, or ``T * int(S * (1 - ratio))``.

    The product is in floating point, as in the published code: 3 of 40 are kept at 0.9.

    Args:
        mask: a name in `MASKS`; ``tube`` counts by time steps.
        unit_grid: mask units along each axis, ``(T, H, W)`` or ``(H, W)``.
        ratio: share of units that are hidden, in (0, 1).

    Raises:
        ValueError: an unknown mask, a ratio out of range, or one that keeps no unit or all.
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
    """How many random numbers a mask is made from.

    Args:
        mask: a name in `MASKS`.
        unit_grid: mask units along each axis, ``(T, H, W)`` or ``(H, W)``.

    Raises:
        ValueError: an unknown mask.
    """
    check_mask(mask)
    units = math.prod(unit_grid)
    if mask == "tube":
        return units // _steps(unit_grid)
    return units + 6 * NUM_CUBOIDS if mask == "block" else units


def kept_units(mask: str, noise: Tensor, unit_grid: Sequence[int], keep: int) -> Tensor:
    """Choose the units that a mask keeps.

    Args:
        mask: a name in `MASKS`.
        noise: uniform random numbers in [0, 1), ``(B, num_noise(mask, unit_grid))``.
        unit_grid: mask units along each axis, ``(T, H, W)`` or ``(H, W)``.
        keep: K, from `num_kept`.

    Returns:
        Indices of kept units, int64 ``(B, K)``, ascending; computed without waiting for the device.

    Raises:
        ValueError: an unknown mask.
    """
    check_mask(mask)
    if mask == "tube":
        return tube_units(noise, keep, _steps(unit_grid))
    return block_units(noise, keep, unit_grid) if mask == "block" else random_units(noise, keep)


def random_units(noise: Tensor, keep: int) -> Tensor:
    """Indices of the K units with the least noise.

    Args:
        noise: uniform random numbers ``(B, U)``.
        keep: K.

    Returns:
        int64 ``(B, K)``, ascending.
    """
    return noise.argsort(dim=1, stable=True)[:, :keep].sort(dim=1).values


def tube_units(noise: Tensor, keep: int, steps: int) -> Tensor:
    """Indices of the K / T places with the least noise, in each of T time steps.

    Args:
        noise: uniform random numbers ``(B, S)``.
        keep: K, a multiple of T.
        steps: T.

    Returns:
        int64 ``(B, K)``, ascending.
    """
    places = random_units(noise, keep // steps)  # (B, K/T)
    step = torch.arange(steps, device=noise.device) * noise.shape[1]
    return (step[:, None] + places[:, None]).flatten(1)  # (B, K)


def block_units(noise: Tensor, keep: int, unit_grid: Sequence[int]) -> Tensor:
    """Indices of the units that are left when cuboids have hidden U - K units.

    A cuboid spans 1 to T units in time, and a quarter to three quarters of the grid in height and
    width; each length is equally likely. Its place is uniform among those where it hides anything.
    It may reach over the border: otherwise units at the border would be kept far more often.

    Of the last cuboid only as many units are hidden as are needed, chosen at random.

    Args:
        noise: uniform random numbers in [0, 1), ``(B, 6 * NUM_CUBOIDS + U)``: sizes of the cuboids,
            their places, and for each unit its order among those of the same cuboid or of none.
        keep: K.
        unit_grid: ``(T, H, W)`` or ``(H, W)``.

    Returns:
        int64 ``(B, K)``, ascending.
    """
    # In float64 no product below rounds up to the next integer, and the number of a cuboid plus the
    # noise of a unit is exact.
    noise = noise.double()
    sizes, places, order = noise.tensor_split([3 * NUM_CUBOIDS, 6 * NUM_CUBOIDS], dim=1)
    sizes, places = sizes.unflatten(1, (-1, 3)), places.unflatten(1, (-1, 3))  # (B, N, axis)
    grid = (_steps(unit_grid), *unit_grid[-2:])
    # A cuboid covers a unit if it does along every axis.
    covered = torch.ones(1, 1, 1, 1, 1, dtype=torch.bool, device=noise.device)
    for axis, length in enumerate(grid):
        least = 1 if axis == 0 else math.ceil(length / 4)
        most = length if axis == 0 else math.ceil(length * 3 / 4)
        # `length + size - 1` starts hide at least one unit; the first is `1 - size`.
        size = least + (sizes[..., axis] * (most - least + 1)).floor()  # (B, N)
        start = (places[..., axis] * (length + size - 1)).floor() - size + 1  # (B, N)
        unit = torch.arange(length, device=noise.device)
        inside = (unit >= start[..., None]) & (unit < (start + size)[..., None])  # (B, N, length)
        shape = [length if a == axis else 1 for a in range(3)]
        covered = covered & inside.reshape(*inside.shape[:2], *shape)  # (B, N, T, H, W) at last
    # Units are hidden in the order of the first cuboid that covers them, those of none at last.
    number = torch.arange(NUM_CUBOIDS, device=noise.device)[:, None]
    first = torch.where(covered.flatten(2), number, NUM_CUBOIDS).amin(dim=1)  # (B, U)
    hidden_first = (first + order).argsort(dim=1, stable=True)  # (B, U)
    return hidden_first[:, first.shape[1] - keep :].sort(dim=1).values


def drawn_units(hidden: Tensor, unit_grid: Sequence[int]) -> Tensor:
    """Indices of the units that a mask drawn by hand keeps.

    Args:
        hidden: bool ``(T, H, W)``, one value for each unit, True where it is hidden; or ``(H, W)``,
            the same in all time steps.
        unit_grid: ``(T, H, W)`` or ``(H, W)``.

    Returns:
        int64 ``(K,)``, ascending.

    Raises:
        ValueError: the mask has another shape or type, or hides nothing or everything.
    """
    grid = tuple(unit_grid)
    if hidden.dtype != torch.bool or tuple(hidden.shape) not in (grid, grid[-2:]):
        raise ValueError(
            f"a mask drawn by hand must be bool {grid} or {grid[-2:]}, one value for each mask "
            f"unit, not {hidden.dtype} {tuple(hidden.shape)}"
        )
    kept = (~hidden).expand(grid).flatten().nonzero()[:, 0]  # (K,)
    check_num_kept(len(kept), math.prod(grid))
    return kept


def given_units(mask: Tensor, batch: int, units: int) -> Tensor:
    """Indices of the units that a mask of each sample keeps.

    Args:
        mask: bool ``(B, U)``, True where kept, with the same number in each row, which is looked up
            (this waits for the device); or int64 ``(B, K)``, distinct indices in any order.
        batch: B.
        units: U.

    Returns:
        int64 ``(B, K)``, ascending.

    Raises:
        ValueError: the mask has another shape or type, rows keep different numbers of units, or it
            keeps none or all.
    """
    if mask.ndim != 2 or len(mask) != batch or mask.dtype not in (torch.bool, torch.int64):
        raise ValueError(
            f"mask must be bool ({batch}, {units}) or int64 indices ({batch}, K), "
            f"got {mask.dtype} {tuple(mask.shape)}"
        )
    if mask.dtype == torch.int64:
        check_num_kept(mask.shape[1], units)
        return mask.sort(dim=1).values
    if mask.shape[1] != units:
        raise ValueError(f"mask must have {units} units a row, not {mask.shape[1]}")
    counts = mask.sum(dim=1).tolist()
    if len(set(counts)) != 1:
        raise ValueError(f"mask must keep the same number of units in each row, not {counts}")
    check_num_kept(counts[0], units)
    return true_places(mask, counts[0])


def true_places(mask: Tensor, count: int) -> Tensor:
    """Places of the True entries in each row of ``(B, N)``, ascending: int64 ``(B, count)``.

    The caller knows their number, so nothing waits for the device.
    """
    return mask.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]


def running_cell(hidden: Tensor, count: int, noise: Tensor, grid: Sequence[int]) -> Tensor:
    """Indices of the hidden patches that a decoder predicts (VideoMAE V2, arXiv:2303.16727).

    Each cell of 2x2 patches keeps the same share of them. Which ones it keeps moves on with time,
    so that no place is left out at all times. The patch to begin with is random, and so is the
    choice where cells cannot all keep equally many.

    Args:
        hidden: bool ``(B, P)``, patches in raster order; with the same number of them in each row.
        count: M, how many are predicted, at most that number.
        noise: uniform random numbers in [0, 1), ``(B, P + 1)``.
        grid: patches along each axis, ``(T, H, W)`` or ``(H, W)``.

    Returns:
        int64 ``(B, M)``, ascending.
    """
    step = torch.arange(_steps(grid), device=noise.device)[:, None, None]
    row, column = (torch.arange(n, device=noise.device) % 2 for n in grid[-2:])
    place = (2 * row[:, None] + column + step).flatten()  # (P,): in its cell, turned by time
    turn = (4 * noise[:, :1]).floor()  # (B, 1)
    order = (place + turn) % 4 + noise[:, 1:]  # (B, P)
    return random_units(torch.where(hidden, order, 8.0), count)


def check_mask(mask: str) -> None:
    """Raise a ValueError if there is no mask of that name."""
    if mask not in MASKS:
        raise ValueError(f"mask must be one of {', '.join(MASKS)}, not {mask!r}")


def check_num_kept(keep: int, units: int) -> None:
    """Raise a ValueError if no unit is kept or none is hidden."""
    if not 0 < keep < units:
        raise ValueError(
            f"{keep} of {units} mask units would be kept; at least one must be kept and one hidden"
        )


def _steps(unit_grid: Sequence[int]) -> int:
    """T, the number of time steps: 1 for images."""
    return unit_grid[0] if len(unit_grid) == 3 else 1
