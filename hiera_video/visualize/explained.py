"""Figures that explain Hiera, drawn from the code of the model."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch

from hiera_video.models.hiera import Hiera
from hiera_video.models.token_order import join_units, reroll, unroll

ONE_UNIT, ALL_TOKENS, EMPTY = "#d1495b", "#2e6f95", "#f4f4f4"
UNITS = ["#cfe3ee", "#f6d3c6", "#d8e8cf", "#efe3b4"]


def stage_figure(model: Hiera, picture: np.ndarray) -> Any:
    """The grid of tokens in each stage, with one mask unit and what its tokens attend to.

    Args:
        model: a network of videos.
        picture: a frame of its input, uint8 ``(H, W, 3)``.

    Returns:
        A figure of Matplotlib.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    height, width = picture.shape[:2]
    stages = len(model.stage_ends)
    figure = Figure(figsize=(2.4 * (stages + 1), 3.3))
    axes = figure.subplots(1, stages + 1)
    axes[0].imshow(picture, extent=(0, width, height, 0))
    axes[0].set_title(f"input\n{' x '.join(map(str, model.input_size))} pixels", fontsize=9)
    _, rows, columns = model.unit_grid
    _rule(axes[0], (height, width), (height // rows, width // columns))
    for stage, ax in enumerate(axes[1:]):
        ends = [-1, *model.stage_ends]
        blocks = model.blocks[ends[stage] + 1 : ends[stage + 1] + 1]
        windowed = blocks[-1].attn.windowed  # pyright: ignore
        unit = [
            int(np.prod([level[a] for level in model.levels[min(stage, model.q_pool) :]]))
            for a in range(3)
        ]
        tokens = [n * u for n, u in zip(model.unit_grid, unit, strict=True)]
        size, grid = tokens[1:], np.zeros(tokens[1:])
        seen = np.full(size, not windowed)
        row, column = (rows - 1) // 3 * unit[1], columns // 2 * unit[2]
        seen[row : row + unit[1], column : column + unit[2]] = True
        extent = (0, size[1], size[0], 0)
        ax.imshow(grid, cmap=ListedColormap([EMPTY]), extent=extent)
        colour = ListedColormap([ONE_UNIT if windowed else ALL_TOKENS])
        ax.imshow(np.ma.masked_where(~seen, grid), cmap=colour, extent=extent, alpha=0.55)
        _rule(ax, size, (1, 1), width=0.2)
        _rule(ax, size, unit[1:])
        channels = model.stage_dims[stage]
        title = f"stage {stage + 1}: {' x '.join(map(str, tokens))}\n{channels} channels"
        ax.set_title(title, fontsize=9)
        of_unit = f"{unit[1]} x {unit[2]} tokens" if unit[1] * unit[2] > 1 else "1 token"
        where = "within a mask unit" if windowed else "among all tokens"
        count = f"{len(blocks)} block{'s' if len(blocks) > 1 else ''}"
        ax.set_xlabel(f"{count}, {where}\nmask unit: {of_unit}", fontsize=8)
    return without_ticks(figure, axes)


def token_order_figure() -> Any:
    """Raster order and unit order of 8 x 8 tokens in 4 units; pooling is a maximum over slices.

    Returns:
        A figure of Matplotlib.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

    levels, units = ((2, 2), (2, 2)), ListedColormap(UNITS)
    raster = np.arange(64).reshape(8, 8)
    memory, pooled = _places_in_memory(16, levels), _places_in_memory(4, levels[1:])
    figure = Figure(figsize=(11, 5.2))
    axes = figure.subplots(2, 3, height_ratios=(7, 1), gridspec_kw={"hspace": 0.12})
    panels = (
        ("raster order", raster, memory // 16),
        ("order in memory: unit by unit", memory, memory // 16),
        ("after pooling 2 x 2", pooled, pooled // 4),
    )
    for ax, (title, numbers, colours) in zip(axes[0], panels, strict=True):
        size = len(numbers)
        ax.imshow(colours, cmap=units, extent=(0, size, size, 0), vmin=0, vmax=3)
        _rule(ax, (size, size), (1, 1), width=0.3)
        _rule(ax, (size, size), (size // 2, size // 2))
        ax.set_title(title, fontsize=10)
        for row in range(size):
            for column in range(size):
                text = str(int(numbers[row, column]))
                ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7)
    for ax, (_, numbers, colours) in zip(axes[1], panels, strict=True):
        strip = colours.flatten()[numbers.flatten().argsort()]  # in the order of the numbers
        extent = (0, len(strip), 1, 0)
        ax.imshow(strip[None], cmap=units, extent=extent, aspect="auto", vmin=0, vmax=3)
        _rule(ax, (1, len(strip)), (1, 1), width=0.3)
        ax.set_xlabel(f"{len(strip)} tokens, one after the other in memory", fontsize=8)
    for start in range(0, 16, 4):  # the slices of the first unit that pooling compares
        axes[1, 1].plot([start + 0.4, start + 3.6], [-0.25, -0.25], color="black", clip_on=False)
    return without_ticks(figure, axes.flat)


def unit_figure(model: Hiera, picture: np.ndarray) -> Any:
    """A frame as the network orders it: each mask unit, and the slices that pooling compares.

    A slice of a unit has one token from each cell of the first pooling: it is the unit at a lower
    resolution. The first pooling takes the maximum over the slices.

    Args:
        model: a network of videos.
        picture: a frame of its input, uint8 ``(H, W, 3)``.

    Returns:
        A figure of Matplotlib: the frame, then a row for each of at most four mask units with the
        unit and its slices.
    """
    from matplotlib.figure import Figure

    patch, (_, rows, columns) = model.patch_stride[1:], model.unit_grid
    levels = [level[1:] for level in model.levels]
    slices = unit_slices(picture, patch, (rows, columns), levels)  # (U, S, h, w, 3)
    shown = np.linspace(0, len(slices) - 1, min(4, len(slices))).round().astype(int)
    figure = Figure(figsize=(1.35 * (slices.shape[1] + 4), 1.35 * len(shown)))
    grid = figure.add_gridspec(len(shown), slices.shape[1] + 4, wspace=0.08, hspace=0.08)
    whole = figure.add_subplot(grid[:, :3])
    height, width = picture.shape[:2]
    unit = height // rows, width // columns
    whole.imshow(picture, extent=(0, width, height, 0))
    _rule(whole, (height, width), patch, width=0.2)
    _rule(whole, (height, width), unit, width=1.4)
    whole.set_title(f"frame: {rows} x {columns} mask units", fontsize=9)
    axes = [whole]
    for line, number in enumerate(shown.tolist()):
        top, left = number // columns * unit[0], number % columns * unit[1]
        _number(whole, left + 1, top + 1, number)
        parts = [picture[top : top + unit[0], left : left + unit[1]], *slices[number]]
        for column, part in enumerate(parts, 3):
            ax = figure.add_subplot(grid[line, column])
            ax.imshow(part, interpolation="nearest")
            if line == 0:
                title = f"slice {column - 4}" if column > 3 else "unit"
                ax.set_title(title, fontsize=9)
            if column == 3:
                _number(ax, 0, 0, number)
            axes.append(ax)
    return without_ticks(figure, axes)


def unit_slices(
    picture: np.ndarray,
    patch: Sequence[int],
    unit_grid: Sequence[int],
    levels: Sequence[Sequence[int]],
) -> np.ndarray:
    """The slices of each mask unit over which the first pooling takes the maximum.

    Args:
        picture: uint8 ``(H, W, 3)``.
        patch: height and width of a token, pixels.
        unit_grid: numbers of units along the height and the width.
        levels: factors of a unit along both axes, in the order in which they are pooled.

    Returns:
        uint8 ``(U, S, h, w, 3)``: S slices of each unit as pictures of their tokens.
    """
    (h, w), (height, width) = patch, picture.shape[:2]
    tokens = picture.reshape(height // h, h, width // w, w, 3).swapaxes(1, 2)  # (H', W', h, w, 3)
    tokens = torch.from_numpy(np.ascontiguousarray(tokens)).reshape(1, -1, h * w * 3)
    units = unroll(tokens, unit_grid, levels)[0]  # (U, L, C)
    slices = units.unflatten(1, (int(np.prod(levels[0])), -1))  # (U, S, L/S, C)
    # (U, S, H", W", C)
    grids = reroll(slices, levels[1:]) if levels[1:] else slices[:, :, None]
    grids = grids.unflatten(-1, (h, w, 3)).movedim(4, 3)  # (U, S, H", h, W", w, 3)
    return grids.flatten(4, 5).flatten(2, 3).numpy()


def _number(ax: Any, x: float, y: float, number: int) -> None:
    """The number of a mask unit, white on black."""
    plate = {"facecolor": "black", "pad": 1, "linewidth": 0}
    ax.text(x, y, str(number), va="top", color="white", fontsize=9, bbox=plate)


def without_ticks(figure: Any, axes: Iterable[Any]) -> Any:
    """The figure, with no marks along the axes."""
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


def _places_in_memory(tokens: int, levels: Sequence[Sequence[int]]) -> np.ndarray:
    """The place in memory of each token of 2 x 2 units, where the picture has it."""
    places = torch.arange(4 * tokens).view(1, 4, tokens, 1)  # (B, U, L, C)
    return join_units(reroll(places, levels), (2, 2))[0, :, :, 0].numpy()


def _rule(ax: Any, size: Sequence[int], step: Sequence[int], width: float = 0.9) -> None:
    """Lines over a picture of ``size`` (height, width), a ``step`` (down, right) apart."""
    for place in range(0, size[1] + 1, step[1]):
        ax.axvline(place, color="black", linewidth=width)
    for place in range(0, size[0] + 1, step[0]):
        ax.axhline(place, color="black", linewidth=width)
    ax.set_xlim(0, size[1])
    ax.set_ylim(size[0], 0)
