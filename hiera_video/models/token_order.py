"""The order of tokens inside a Hiera, in which pooling and windows are plain views.

Legend: B batch, U mask units, L tokens of a unit, C channels, T H W axes of a grid.

A grid of tokens is cut into mask units. Tokens are ordered unit by unit, and within a unit by
levels: the place within the cell of the first pooling is the slowest index, then the place within
that of the second, and so on. So pooling by s is a maximum over the leading index of a unit's
``(s, L/s)`` tokens, a window is a slice, and hidden units are rows that are left out. The published
code has the same order but with units fastest; with units slowest, a window is contiguous.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Shape = Sequence[int]


def unroll(x: Tensor, unit_grid: Shape, levels: Sequence[Shape]) -> Tensor:
    """Reorder tokens from raster order to units.

    Args:
        x: ``(B, T*H*W, C)`` in raster order.
        unit_grid: number of units along each axis.
        levels: factors of a unit along each axis, in the order in which they are pooled.

    Returns:
        ``(B, U, L, C)``.
    """
    axes, depth = len(unit_grid), len(levels)
    # An axis splits into unit, last level, ..., first level: (B, Ut, t2, t1, Uh, h2, h1, ..., C)
    split = [n for a in range(axes) for n in (unit_grid[a], *(s[a] for s in reversed(levels)))]
    x = x.reshape(x.shape[0], *split, x.shape[-1])
    unit_axes = [1 + a * (depth + 1) for a in range(axes)]
    level_axes = [unit_axes[a] + depth - k for k in range(depth) for a in range(axes)]
    x = x.permute(0, *unit_axes, *level_axes, x.ndim - 1)  # (B, Ut, Uh, t1, h1, t2, h2, ..., C)
    return x.reshape(x.shape[0], math.prod(unit_grid), -1, x.shape[-1])  # (B, U, L, C)


def reroll(x: Tensor, levels: Sequence[Shape]) -> Tensor:
    """Reorder the tokens within each unit back to raster order.

    Args:
        x: ``(B, U, L, C)``, with any number of units, since hidden ones may be left out.
        levels: the levels of a unit that have not been pooled yet.

    Returns:
        ``(B, U, T, H, W, C)``, where T, H, W are tokens of a unit; ``(B, U, H, W, C)`` for images.
    """
    axes, depth = len(levels[0]), len(levels)
    unit = [math.prod([level[a] for level in levels]) for a in range(axes)]
    x = x.reshape(*x.shape[:2], *(n for level in levels for n in level), x.shape[-1])
    order = [2 + k * axes + a for a in range(axes) for k in reversed(range(depth))]
    x = x.permute(0, 1, *order, x.ndim - 1)  # (B, U, t2, t1, h2, h1, w2, w1, C)
    return x.reshape(*x.shape[:2], *unit, x.shape[-1])  # (B, U, T, H, W, C)


def join_units(x: Tensor, unit_grid: Shape) -> Tensor:
    """Put all units of a grid side by side.

    Args:
        x: ``(B, U, T, H, W, C)``, images ``(B, U, H, W, C)``, each unit in raster order.
        unit_grid: number of units along each axis, ``(Ut, Uh, Uw)`` or ``(Uh, Uw)``.

    Returns:
        ``(B, Ut*T, Uh*H, Uw*W, C)``, images ``(B, Uh*H, Uw*W, C)``.
    """
    axes, unit = len(unit_grid), x.shape[2:-1]
    x = x.reshape(x.shape[0], *unit_grid, *unit, x.shape[-1])  # (B, Ut, Uh, Uw, T, H, W, C)
    order = [d for a in range(axes) for d in (1 + a, 1 + axes + a)]
    x = x.permute(0, *order, x.ndim - 1)  # (B, Ut, T, Uh, H, Uw, W, C)
    size = [n * u for n, u in zip(unit_grid, unit, strict=True)]
    return x.reshape(x.shape[0], *size, x.shape[-1])


def take(x: Tensor, places: Tensor) -> Tensor:
    """The rows ``(B, M, C)`` of ``(B, P, C)`` at the indices ``(B, M)``, int64."""
    return x.gather(1, places[:, :, None].expand(-1, -1, x.shape[-1]))


def pool(x: Tensor, stride: int) -> Tensor:
    """Take the maximum over the next level: ``(B, U, L, ...)`` to ``(B, U, L/stride, ...)``."""
    if stride == 1:
        return x
    x = x.unflatten(2, (stride, -1))  # (B, U, stride, L/stride, ...)
    tracing = torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    if tracing or torch.compiler.is_compiling():  # a trace has no Python code, compiled no counts
        return x.amax(dim=2)
    return _Largest.apply(x)  # type: ignore[return-value]


class _Largest(torch.autograd.Function):
    """``x.amax(dim=2)``, whose own backward pass counts equal maxima with 8 bytes for each of `x`.

    The gradient is the same: shared equally by all that are the largest.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.amax(dim=2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, largest = ctx.saved_tensors
        is_largest = x == largest.unsqueeze(2)  # (B, U, stride, L/stride, ...)
        share = grad / is_largest.sum(2, dtype=torch.int16)  # (B, U, L/stride, ...)
        return is_largest * share.unsqueeze(2)


def windows(x: Tensor, windowed: bool) -> Tensor:
    """Fold units into the batch, or join them, so that attention sees one sequence in each row.

    Args:
        x: ``(B, U, L, heads, channels)``.
        windowed: each unit is a sequence of its own; otherwise all units together are one.

    Returns:
        A view: ``(B*U, heads, L, channels)`` if windowed, else ``(B, heads, U*L, channels)``.
    """
    x = x.flatten(0, 1) if windowed else x.flatten(1, 2)  # (rows, tokens, heads, channels)
    return x.transpose(1, 2)
