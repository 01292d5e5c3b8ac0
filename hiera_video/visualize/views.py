"""Where the views of a video are, and what a classifier says about each."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from hiera_video.visualize.text import lettering
from hiera_video.visualize.timeline import COLOURS, clock

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI, WIDTH = 90, 12.0  # pixels an inch, inches
LETTERS = 18  # of a name beside a bar


def places_picture(
    frames: np.ndarray, boxes: np.ndarray, times: np.ndarray, duration: float
) -> Image.Image:
    """Draw the crops of each moment on a frame, and the moments as bars on the timeline.

    Args:
        frames: the middle of each of N moments, uint8 ``(N, height, width, 3)``.
        boxes: of S crops: x1, y1, x2, y2 in [0, 1] of the frame, float ``(S, 4)``.
        times: of the frames of each moment, float ``(N, T)``, seconds, in [0, duration].
        duration: of the video, seconds.

    Returns:
        RGB.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    moments, height, width = frames.shape[:3]
    tall = WIDTH / moments * height / width
    figure = Figure(figsize=(WIDTH, tall + 0.9 + 0.2 * moments), dpi=DPI, layout="constrained")
    grid = figure.add_gridspec(2, moments, height_ratios=(tall, 0.6 + 0.2 * moments))
    for i, frame in enumerate(frames):
        axes = figure.add_subplot(grid[0, i])
        axes.imshow(frame)
        for place, (x1, y1, x2, y2) in enumerate(boxes * [width, height, width, height]):
            inset = 1 + 1.5 * place  # crops overlap; their lines shall not
            corner, size = (x1 + inset, y1 + inset), (x2 - x1 - 2 * inset, y2 - y1 - 2 * inset)
            colour = COLOURS[place % len(COLOURS)]
            axes.add_patch(Rectangle(corner, *size, fill=False, color=colour, linewidth=2))
        axes.set_title(f"moment {i}", fontsize=9)
        axes.axis("off")
    axes = figure.add_subplot(grid[1, :])
    for i, moment in enumerate(times):
        axes.plot(moment[[0, -1]], [-i, -i], color="0.75", linewidth=7, solid_capstyle="butt")
        axes.plot(moment, np.full(len(moment), -i), "|", color="black", markersize=7)
    axes.set(xlim=(0, duration), ylim=(0.6 - moments, 0.6))
    axes.set_yticks(-np.arange(moments), [f"moment {i}" for i in range(moments)], fontsize=8)
    axes.xaxis.set_major_formatter(lambda value, _: clock(value, duration))
    axes.axvline(duration, color="0.6", linestyle=":")
    axes.spines[["top", "right", "left"]].set_visible(False)
    return _image(figure)


def answers_picture(
    crops: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str], top: int = 5
) -> Image.Image:
    """Draw each view with bars of its most probable classes, and those of the average below.

    A class that is among the first of the average has the same colour everywhere; others are grey.

    Args:
        crops: a frame of each of N x S views, uint8 ``(N, S, H, W, 3)``.
        probabilities: float ``(N, S, classes)``.
        class_names: in the order of the classes.
        top: at most so many classes.

    Returns:
        RGB, with a column for each moment and a row for each crop.
    """
    from matplotlib.figure import Figure

    moments, places = probabilities.shape[:2]
    average = probabilities.mean((0, 1))
    first: list[int] = np.argsort(-average, kind="stable")[:top].tolist()
    colours = {column: COLOURS[i % len(COLOURS)] for i, column in enumerate(first)}
    bars = 0.2 * len(first) + 0.1
    ratios = [*(1.2, bars) * places, bars + 0.6]
    figure = Figure(figsize=(WIDTH, 1.2 * sum(ratios)), dpi=DPI)
    # By numbers: a layout that Matplotlib finds itself takes seconds for so many axes.
    grid = figure.add_gridspec(
        len(ratios), moments, height_ratios=ratios,
        left=0.01, right=0.99, bottom=0.01, top=0.97, hspace=0.2, wspace=0.08,
    )  # fmt: skip
    for t in range(moments):
        for s in range(places):
            axes = figure.add_subplot(grid[2 * s, t])
            axes.imshow(crops[t, s])
            axes.set_title(f"moment {t}, crop {s}", fontsize=8)
            axes.axis("off")
            axes = figure.add_subplot(grid[2 * s + 1, t])
            _bars(axes, probabilities[t, s], class_names, len(first), colours)
    axes = figure.add_subplot(grid[-1, :])
    _bars(axes, average, class_names, len(first), colours)
    axes.set_title(f"average of {moments} x {places} views", fontsize=10)
    return _image(figure)


def _bars(
    axes: Any,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    top: int,
    colours: dict[int, str],
) -> None:
    """Draw the most probable classes as lying bars, the best on top, with names and numbers."""
    from matplotlib.font_manager import FontProperties

    best: list[int] = np.argsort(-probabilities, kind="stable")[:top].tolist()
    for row, column in enumerate(best):
        axes.barh(-row, probabilities[column], 0.8, color=colours.get(column, "0.7"))
        name = class_names[column]
        name = name if len(name) <= LETTERS else name[: LETTERS - 1].rstrip() + "…"
        text, font = lettering(f"{name} {probabilities[column]:.2f}")
        properties = FontProperties(fname=font, size=8)
        axes.text(0.02, -row, text, fontproperties=properties, va="center")
    axes.set(xlim=(0, 1), ylim=(0.5 - len(best), 0.5), xticks=[], yticks=[])
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def _image(figure: "Figure") -> Image.Image:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return Image.open(file).convert("RGB")
