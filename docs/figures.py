"""Draw the figures of docs/how_hiera_works.md from the code of the model.

python -m docs.figures
"""

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from datamodules.figures import draw_action
from hiera_video import create_mae, create_model
from hiera_video.models.masks import MASKS, kept_units, num_kept, num_noise
from hiera_video.visualize.explained import stage_figure, token_order_figure, without_ticks

FOLDER = Path(__file__).with_suffix("")
MODEL = "hiera_base_16x224"


def stages() -> Figure:
    """The grid of tokens in each stage of one network."""
    with torch.device("meta"):
        model = create_model(MODEL)
    return stage_figure(model, draw_action("wave_right", np.random.default_rng(3), 1, 224)[0])


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
    return without_ticks(figure, axes.flat)


def _rule(ax: Axes, size: int, step: int, width: float) -> None:
    for place in range(0, size + 1, step):
        ax.axvline(place, color="black", linewidth=width)
        ax.axhline(place, color="black", linewidth=width)


FIGURES = {"stages": stages, "token_order": token_order_figure, "masks": masks}


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
