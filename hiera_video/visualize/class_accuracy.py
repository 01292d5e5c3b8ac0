"""The accuracy of each class as a picture of bars."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from hiera_video.visualize.text import font_of_size, lettering, shortened

ROW, LETTERS, GAP = 18, 12, 8  # pixels
NAME, BAR, NUMBERS = 320, 240, 130  # pixels: widths of names, of a full bar, and of the numbers
COLOUR, EMPTY = (9, 105, 218), (225, 229, 234)


def class_accuracy_picture(
    accuracy: np.ndarray, videos: np.ndarray, class_names: Sequence[str], most: int = 40
) -> Image.Image:
    """Paint a bar for each class that has videos, the lowest accuracy on top.

    Args:
        accuracy: float64 ``(classes,)`` in [0, 1]; NaN for a class without videos.
        videos: number of videos of each class, int64 ``(classes,)``.
        class_names: in the order of the class ids.
        most: paint only so many classes; the first line says so.

    Returns:
        RGB, 18 pixels high for each class and for the first line.
    """
    ascending: list[int] = np.argsort(accuracy, kind="stable").tolist()
    present = [i for i in ascending if videos[i]]
    names = [_name(class_names[i]) for i in present[:most]]
    margin = int(max((font.getlength(text) for text, font in names), default=0)) + 2 * GAP
    size = (margin + BAR + NUMBERS, (1 + len(names)) * ROW + GAP)
    picture = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(picture)
    numbers = font_of_size(lettering("").font, LETTERS)
    which = f"the lowest {most} of {len(present)} classes" if most < len(present) else "all classes"
    draw.text((GAP, ROW // 2), f"top-1: {which}", "black", numbers, anchor="lm")
    for row, (i, (text, font)) in enumerate(zip(present, names, strict=False), start=1):
        top, middle = row * ROW, row * ROW + ROW // 2
        draw.text((margin - GAP, middle), text, "black", font, anchor="rm")
        draw.rectangle((margin, top + 3, margin + BAR - 1, top + ROW - 4), EMPTY)
        if filled := round(BAR * float(accuracy[i])):
            draw.rectangle((margin, top + 3, margin + filled - 1, top + ROW - 4), COLOUR)
        share = f"{accuracy[i]:.1%} of {videos[i]:,}"
        draw.text((margin + BAR + GAP, middle), share, "black", numbers, anchor="lm")
    return picture


def _name(name: str) -> tuple[str, Any]:
    """A name that fits its column, and the font to write it in."""
    text, file = lettering(name)
    font = font_of_size(file, LETTERS)
    return shortened(text, font, NAME), font
