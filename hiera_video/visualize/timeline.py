"""Classes over the time of a video as a picture: a row for each, with its segments."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from hiera_video.visualize.text import lettering

WIDTH, ROW, DPI = 11.0, 0.55, 120  # inches, inches a class
LETTERS = 40  # of a name
SHORT = 120  # seconds: shorter videos count in seconds
MARKS = 10  # at most this many spaces between the marks of the axis
CLOCK_STEPS = (15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 28800, 86400)
# Okabe and Ito (2008), distinct for all kinds of colour vision.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#999999", "#8C7A00")


class TimelineRow(NamedTuple):
    """A class to draw.

    Attributes:
        label: name of the class.
        scores: in [0, 1], float ``(N,)``, one for each part of the video.
        segments: start and end of each segment, seconds.
    """

    label: str
    scores: np.ndarray
    segments: Sequence[tuple[float, float]] = ()


def write_timeline(
    path: Path, title: str, edges: np.ndarray, rows: Sequence[TimelineRow], threshold: float
) -> None:
    """Write a picture (PNG) of the scores of some classes over time.

    Each row runs from 0 to 1, with a dashed line at the threshold and a thick bar below it for each
    segment.

    Args:
        path: the file.
        title: a line above the picture.
        edges: seconds at which the parts of the video begin, and the end of the last one: float
            ``(N + 1,)``, ascending.
        rows: the classes, from top to bottom.
        threshold: in [0, 1].
    """
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties
    from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator

    def write(text: str, size: float) -> tuple[str, FontProperties]:
        legible, file = lettering(text)
        return legible, FontProperties(fname=file, size=size)  # pyright: ignore[reportArgumentType]

    figure = Figure(figsize=(WIDTH, 1.1 + ROW * len(rows)), dpi=DPI, layout="constrained")
    axes = figure.add_subplot()
    for i, (label, scores, segments) in enumerate(rows):
        base, colour = -1.3 * i, COLOURS[i % len(COLOURS)]
        outline = np.append(scores, scores[-1:]) + base
        axes.fill_between(edges, base, outline, step="post", color=colour, alpha=0.35, linewidth=0)
        axes.step(edges, outline, where="post", color=colour, linewidth=1)
        axes.hlines(
            base + threshold, edges[0], edges[-1], color="0.5", linewidth=0.7, ls=(0, (4, 4))
        )
        spans = [(start, end - start) for start, end in segments]
        axes.broken_barh(spans, (base - 0.15, 0.1), color=colour)
        name, font = write(_cut(label), 9)
        axes.text(
            -0.01, base + 0.45, name, transform=axes.get_yaxis_transform(), ha="right", va="center",
            fontproperties=font,
        )  # fmt: skip
        for height in (0, 1):
            axes.text(
                1.005, base + height, str(height), transform=axes.get_yaxis_transform(),
                va="center", fontsize=6, color="0.4",
            )  # fmt: skip
    axes.set(xlim=(edges[0], edges[-1]), ylim=(-1.3 * (len(rows) - 1) - 0.25, 1.1), yticks=[])
    if (step := step_of_clock(edges[-1])) is None:
        axes.xaxis.set_major_locator(MaxNLocator(MARKS, steps=[1, 2, 2.5, 5, 10]))
    else:
        axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: clock(value, edges[-1])))
    axes.spines[["left", "right", "top"]].set_visible(False)
    axes.grid(axis="x", color="0.9", linewidth=0.7)
    axes.set_axisbelow(True)
    text, font = write(title, 10)
    axes.set_title(text, fontproperties=font, loc="left")
    figure.savefig(path, format="png", metadata={"Software": None})


def clock(seconds: float, longest: float) -> str:
    """A time as text: ``5 s`` in a short video, ``1:05`` in one of minutes, ``1:00:05`` of hours.

    Args:
        seconds: the time.
        longest: length of the video, seconds.
    """
    if longest < SHORT:
        return f"{seconds:g} s"
    minutes, rest = divmod(round(seconds), 60)
    if longest < 3600:
        return f"{minutes}:{rest:02d}"
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"


def step_of_clock(longest: float) -> int | None:
    """Seconds between the marks of a video's axis, a round time; None in a short video.

    Args:
        longest: length of the video, seconds.
    """
    if longest < SHORT:
        return None
    return next((step for step in CLOCK_STEPS if longest <= MARKS * step), CLOCK_STEPS[-1])


def _cut(label: str) -> str:
    return label if len(label) <= LETTERS else label[: LETTERS - 1].rstrip() + "…"
