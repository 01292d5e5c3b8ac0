"""Logged numbers as small SVG charts, whose colours come from the page's style sheet."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from markupsafe import Markup

from hiera_video.reporting.run_files import Curve

WIDTH, HEIGHT = 420, 240  # of a chart, in the units of its letters' 12
LEFT, RIGHT, TOP, BOTTOM = 54, 408, 12, 202  # of its axes
MOST_POINTS = 400  # of a line; more are averaged
MOST_DOTS = 40  # a line of so many points also has dots
MOST_LINES = 6  # in a chart: the style sheet has so many colours
MOST_CHARTS = 24

# The charts of a page: a title, the names of the lines, and whether they are shares in [0, 1].
LEARNING = (
    ("Loss", r"(train|val)/loss", False),
    ("Accuracy", r"(train|val)/(top\d+|accuracy|mean_class_accuracy)", True),
    ("Mean average precision", r"val/(mAP_.*|(mask|box)_AP)", True),
    ("Accuracy of probes", r"val/(knn|linear).*", True),
    ("Learning rate", r"lr(/.*)?", False),
    ("Gradient norm", r"train/grad_norm", False),
)
SPEED = (
    ("Clips per second", r"speed/clips_per_second", False),
    ("Waiting for data, share of the time", r"speed/waits_for_data", True),
    ("Model FLOPs utilisation", r"speed/mfu", True),
    ("Peak GPU memory, GiB", r"memory/peak_gib", False),
    ("Videos that could not be decoded, share", r"train/bad_share", True),
)
Groups = Sequence[tuple[str, str, bool]]
# Counts and details of single processes, which no chart shows.
NOT_DRAWN = r"speed/rank_.*|train/bad_videos|val/failed.*|train/skipped"


class Line(NamedTuple):
    """A line of a chart, for its legend.

    Attributes:
        name: of the logged number.
        last: its last value, as text.
        note: its extremes, and values that are not drawn.
    """

    name: str
    last: str
    note: str


class Chart(NamedTuple):
    """A chart.

    Attributes:
        title: what it shows.
        svg: the picture.
        lines: of its legend, in the order of the colours.
    """

    title: str
    svg: Markup
    lines: list[Line]


def charts(curves: Mapping[str, Curve], groups: Groups) -> list[Chart]:
    """Draw logged numbers in groups, such as `LEARNING` and `SPEED`; empty groups are left out.

    Args:
        curves: the logged numbers by name.
        groups: what is drawn.
    """
    drawn = []
    for title, pattern, share in groups:
        lines = {n: c for n, c in curves.items() if c.steps and re.fullmatch(pattern, n)}
        if lines:
            drawn.append(_chart(title, dict(list(lines.items())[:MOST_LINES]), share))
    return drawn


def other_charts(curves: Mapping[str, Curve]) -> list[Chart]:
    """Draw each number that no group names by itself, at most 24 of them."""
    named = "|".join([NOT_DRAWN, *(pattern for _, pattern, _ in (*LEARNING, *SPEED))])
    names = [name for name in curves if not re.fullmatch(named, name)]
    return charts(curves, [(name, re.escape(name), False) for name in names])[:MOST_CHARTS]


def thinned(curve: Curve) -> list[tuple[float, float]]:
    """Average neighbouring points until at most 400 are left.

    Returns:
        Pairs of a step and a value.
    """
    size = math.ceil(len(curve.steps) / MOST_POINTS)
    bins = range(0, len(curve.steps), size)
    return [(_mean(curve.steps[i : i + size]), _mean(curve.values[i : i + size])) for i in bins]


def _mean(numbers: Sequence[float]) -> float:
    return sum(numbers) / len(numbers)


def _chart(title: str, curves: Mapping[str, Curve], share: bool) -> Chart:
    """Draw some curves on common axes; ``share``: the values are shares, shown in percent."""
    text = _percent if share else _plain
    points = {name: thinned(curve) for name, curve in curves.items()}
    steps = [step for line in points.values() for step, _ in line]
    values = [value for line in points.values() for _, value in line]
    y_ticks = ticks(min(values), max(values), 5)
    x_ticks = [t for t in ticks(0, max(steps), 5) if t <= max(steps) and t == int(t)]
    low, high = min(y_ticks[0], *values), max(y_ticks[-1], *values)

    def x(step: float) -> float:
        return LEFT + (RIGHT - LEFT) * step / max(steps)

    def y(value: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * (value - low) / (high - low)

    parts = [_axes([(x(t), _count(t)) for t in x_ticks], [(y(t), text(t)) for t in y_ticks])]
    for number, line in enumerate(points.values()):
        places = [(x(step), y(value)) for step, value in line]
        parts.append(_line(places, f"c{number}"))
    legend = [_legend(name, curve, text) for name, curve in curves.items()]
    spoken = f"{title} by step. " + " ".join(
        f"{n}: last {last}, {note}." for n, last, note in legend
    )
    svg = Markup(
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}'
        '<text class="axis" x="{}" y="{}" text-anchor="end">step</text></svg>'
    ).format(WIDTH, HEIGHT, spoken, Markup("").join(parts), RIGHT, HEIGHT - 6)
    return Chart(title, svg, legend)


def _axes(x_ticks: Iterable[tuple[float, str]], y_ticks: Iterable[tuple[float, str]]) -> Markup:
    """A horizontal line for each tick of y; the words of both."""
    rule = Markup('<line class="rule" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>')
    word = Markup('<text class="axis" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>')
    rows = [rule.format(LEFT, RIGHT, y, y) + word.format(LEFT - 6, y + 4, "end", t)
            for y, t in y_ticks]  # fmt: skip
    columns = [word.format(x, BOTTOM + 17, "middle", t) for x, t in x_ticks]
    return Markup("").join([*rows, *columns])


def _line(places: Sequence[tuple[float, float]], colour: str) -> Markup:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    line = Markup('<polyline class="line {}" points="{}"/>').format(colour, path)
    dot = Markup('<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="2.5"/>')
    dots = places if len(places) <= MOST_DOTS else ()
    return line + Markup("").join(dot.format(colour, x, y) for x, y in dots)


def _legend(name: str, curve: Curve, text: Callable[[float], str]) -> Line:
    note = f"{text(min(curve.values))} to {text(max(curve.values))}"
    if curve.left_out:
        note += f", {curve.left_out} not finite"
    return Line(name, text(curve.values[-1]), note)


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, about ``count`` of them.

    If both are the same, they reach from 0 to its double.
    """
    if not high > low:
        low, high = min(0.0, 2 * low), max(0.0, 2 * low) or float(low == 0)
    rough = (high - low) / count
    scale = 10.0 ** math.floor(math.log10(rough))
    step = next(scale * n for n in (1, 2, 5, 10) if scale * n >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [n * step for n in range(first, last + 1)]


def _percent(value: float) -> str:
    return f"{value * 100:.4g}%"


def _plain(value: float) -> str:
    return f"{value:.4g}"


def _count(value: float) -> str:
    for unit, size in (("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
