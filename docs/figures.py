"""Draw the figures of docs/how_hiera_works.md from the code of the model.

python -m docs.figures
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from PIL import Image

from datamodules.figures import draw_action
from hiera_video import create_mae, create_model
from hiera_video.models.masks import MASKS, kept_units, num_kept, num_noise
from hiera_video.models.token_order import join_units, reroll

FOLDER = Path(__file__).with_suffix("")
MODEL = "hiera_base_16x224"
ONE_UNIT, ALL_TOKENS = "#d1495b", "#2e6f95"
UNITS = ListedColormap(["#cfe3ee", "#f6d3c6", "#d8e8cf", "#efe3b4"])


def stages() -> Figure:
    """The grid of tokens in each stage, with one mask unit and what a token can attend to."""
    with torch.device("meta"):
        model = create_model(MODEL)
        maps = model.forward_features(torch.empty(1, 3, *model.input_size), return_stages=True)
    picture = draw_action("wave_right", np.random.default_rng(3), num_frames=1, size=224)[0]
    figure, axes = plt.subplots(1, 5, figsize=(12, 3.3))
    axes[0].imshow(picture, extent=(0, 224, 224, 0))
    axes[0].set_title(f"input\n{' x '.join(map(str, model.input_size))} pixels", fontsize=9)
    _rule(axes[0], 224, 32)
    for stage, (ax, features) in enumerate(zip(axes[1:], maps, strict=True)):
        ends = [-1, *model.stage_ends]
        blocks = model.blocks[ends[stage] + 1 : ends[stage + 1] + 1]
        time, height, _, channels = features.shape[1:]
        unit = height // model.geometry.unit_grid[1]
        grid = np.zeros((height, height))
        windowed = blocks[-1].attn.windowed
        seen = np.zeros_like(grid, dtype=bool)
        seen[2 * unit : 3 * unit, 3 * unit : 4 * unit] = True
        ax.imshow(grid, cmap=ListedColormap(["#f4f4f4"]), extent=(0, height, height, 0))
        ax.imshow(
            np.ma.masked_where(~seen if windowed else grid > 0, grid),
            cmap=ListedColormap([ONE_UNIT if windowed else ALL_TOKENS]),
            extent=(0, height, height, 0),
            alpha=0.55,
        )
        _rule(ax, height, 1, width=0.2)
        _rule(ax, height, unit)
        size = f"{time} x {height} x {height}"
        ax.set_title(f"stage {stage + 1}: {size}\n{channels} channels", fontsize=9)
        tokens = f"{unit} x {unit} tokens" if unit > 1 else "1 token"
        where = "within a mask unit" if windowed else "among all tokens"
        ax.set_xlabel(f"{len(blocks)} blocks, {where}\nmask unit: {tokens}", fontsize=8)
    return _finished(figure, axes)


def token_order() -> Figure:
    """Raster order and unit order of a small grid; pooling is a maximum over slices."""
    levels = ((2, 2), (2, 2))
    raster = np.arange(64).reshape(8, 8)
    memory, pooled = _places_in_memory(16, levels), _places_in_memory(4, levels[1:])
    figure, axes = plt.subplots(
        2, 3, figsize=(11, 5.2), height_ratios=(7, 1), gridspec_kw={"hspace": 0.12}
    )
    panels = (
        ("raster order", raster, memory // 16),
        ("order in memory: unit by unit", memory, memory // 16),
        ("after pooling 2 x 2", pooled, pooled // 4),
    )
    for ax, (title, numbers, colours) in zip(axes[0], panels, strict=True):
        size = len(numbers)
        ax.imshow(colours, cmap=UNITS, extent=(0, size, size, 0), vmin=0, vmax=3)
        _rule(ax, size, 1, width=0.3)
        _rule(ax, size, size // 2)
        ax.set_title(title, fontsize=10)
        for row in range(size):
            for column in range(size):
                text = str(int(numbers[row, column]))
                ax.text(column + 0.5, row + 0.5, text, ha="center", va="center", fontsize=7)
    for ax, (_, numbers, colours) in zip(axes[1], panels, strict=True):
        strip = colours.flatten()[numbers.flatten().argsort()]  # in the order of the numbers
        extent = (0, len(strip), 1, 0)
        ax.imshow(strip[None], cmap=UNITS, extent=extent, aspect="auto", vmin=0, vmax=3)
        _rule(ax, len(strip), 1, width=0.3, rows=False)
        ax.set_xlabel(f"{len(strip)} tokens, one after the other in memory", fontsize=8)
    for start in range(0, 16, 4):  # the slices of the first unit that pooling compares
        axes[1, 1].plot([start + 0.4, start + 3.6], [-0.25, -0.25], color="black", clip_on=False)
    return _finished(figure, axes.flat)


def masks() -> Figure:
    """What the encoder sees of a clip under each mask, at a ratio of 0.9."""
    with torch.device("meta"):
        mae = create_mae(MODEL)
    ratio, grid = 0.9, mae.unit_grid
    clip = draw_action("march", np.random.default_rng(5), num_frames=16, size=224)
    steps = range(0, grid[0], 2)
    figure, axes = plt.subplots(len(MASKS) + 1, len(steps), figsize=(7.2, 7.6))
    for ax, step in zip(axes[0], steps, strict=True):
        ax.imshow(clip[2 * step], extent=(0, 224, 224, 0))
        ax.set_title(f"frames {2 * step}, {2 * step + 1}", fontsize=9)
    axes[0, 0].set_ylabel("clip", fontsize=10)
    for row, mask in zip(axes[1:], MASKS, strict=True):
        noise = torch.rand(1, num_noise(mask, grid), generator=torch.Generator().manual_seed(1))
        kept = kept_units(mask, noise, grid, keep := num_kept(mask, grid, ratio))[0]
        visible = np.zeros(np.prod(grid), dtype=bool)
        visible[kept] = True
        visible = visible.reshape(grid)
        row[0].set_ylabel(f"{mask}\n{keep} of {visible.size} units", fontsize=10)
        for ax, step in zip(row, steps, strict=True):
            pixels = visible[step].repeat(32, 0).repeat(32, 1)[..., None]
            ax.imshow(np.where(pixels, clip[2 * step], 225), extent=(0, 224, 224, 0))
            _rule(ax, 224, 32, width=0.3)
    return _finished(figure, axes.flat)


def _places_in_memory(tokens: int, levels: Sequence[Sequence[int]]) -> np.ndarray:
    """The place in memory of each token of 2 x 2 units, where the picture has it."""
    places = torch.arange(4 * tokens).view(1, 4, tokens, 1)  # (B, U, L, C)
    return join_units(reroll(places, levels), (2, 2))[0, :, :, 0].numpy()


def _rule(ax: Axes, size: int, step: int, width: float = 0.9, rows: bool = True) -> None:
    for place in range(0, size + 1, step):
        ax.axvline(place, color="black", linewidth=width)
        if rows:
            ax.axhline(place, color="black", linewidth=width)
    ax.set_xlim(0, size)
    ax.set_ylim(size if rows else 1, 0)


def _finished(figure: Figure, axes: Iterable[Axes]) -> Figure:
    for ax in axes:
        ax.set_xticks([])
        ax.set_yticks([])
    return figure


FIGURES = {"stages": stages, "token_order": token_order, "masks": masks}


def save(figure: Figure, file: Path) -> None:
    """Write a PNG of 128 colours, a third of the size of one with all."""
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=110, bbox_inches="tight", facecolor="white")
    picture = Image.open(buffer).convert("RGB")
    picture.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        save(draw(), FOLDER / f"{name}.png")
