"""A confusion matrix as a picture with legible names of all classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from hiera_video.visualize.text import font_of_size, lettering

LEAST_CELL, GREATEST_CELL, SIDE = 11, 40, 700  # pixels; SIDE: of the matrix, if cells allow it
MOST_LETTERS = 48
RIGHT, WRONG = np.array([0, 110, 60]), np.array([190, 20, 20])
GAP = 6
CAPTION = "rows: label\ncolumns: predicted"
EVERY = 10  # classes between two lines
MOST_NUMBERS = 20  # classes up to which cells have their numbers
SIZES = range(14, 8, -1)  # pixels of their digits; the largest that fits
SCALE, BAR, MOST_BAR = "share of the row", 8, 140  # its title, height and greatest width, in pixels
TICKS = {"0": 0.0, "50": 0.5, "100%": 1.0}
MOST_CLASSES = 1000  # in a picture: with more, it would fill gigabytes


def confusion_picture(
    counts: np.ndarray, class_names: Sequence[str], most: int | None = None
) -> Image.Image:
    """Paint a confusion matrix: rows are labels, columns predictions, in the order of class ids.

    Cells are green on the diagonal and red elsewhere. The depth of their colour is the square root
    of their share of the row's videos, so that few confused videos are visible, too; a scale shows
    it. The cells of at most 20 classes have their numbers, if these fit.

    Args:
        counts: int ``(classes, classes + 1)``. The last column counts videos without a prediction;
            it is left out if there are none.
        class_names: in the order of the rows.
        most: paint only so many classes, those that are confused most often. A column "(others)"
            counts what they are taken for besides. None: paint all classes, at most 1,000.

    Returns:
        RGB, with space for the longest name at the left and on top.
    """
    caption = CAPTION
    shown = list(range(len(counts)))
    most = min(most or MOST_CLASSES, MOST_CLASSES)
    if most < len(counts):
        caption += f"\nthe {most} of {len(counts)} classes\nthat are confused most"
        shown = _most_confused(counts[:, :-1], most)
    counts, more_columns = _part(counts, shown)
    rows, columns = counts.shape
    cell = int(np.clip(SIDE // rows, LEAST_CELL, GREATEST_CELL))
    size = min(cell - 1, 14)
    names = [_name(class_names[i], size) for i in shown]
    headings = [*names, *(_name(column, size) for column in more_columns)]
    caption_font = ImageFont.load_default(12)
    widths = [font.getlength(name) for name, font in headings]
    widths += [caption_font.getlength(line) for line in [*caption.splitlines(), SCALE]]
    scale = _scale(min(int(max(widths)), MOST_BAR), caption_font)
    below_caption = 2 * GAP + 16 * len(caption.splitlines())
    margin = max(int(max(widths)) + 2 * GAP, below_caption + scale.height + GAP)

    cells = _colours(counts).repeat(cell, 0).repeat(cell, 1)
    lines = np.arange(EVERY, rows, EVERY) * cell
    cells[lines] = cells[:, lines] = 200
    picture = Image.new("RGB", (margin + columns * cell + 1, margin + rows * cell + 1), "white")
    picture.paste(Image.fromarray(cells), (margin, margin))
    draw = ImageDraw.Draw(picture)
    for i, (name, font) in enumerate(names):
        middle = margin + i * cell + cell // 2
        draw.text((margin - GAP, middle), name, "black", font, anchor="rm")
    picture.paste(_turned(headings, margin, cell), (margin, 0))
    draw.text((GAP, GAP), caption, "black", caption_font)
    picture.paste(scale, (GAP, below_caption))
    if rows <= MOST_NUMBERS:
        _write_numbers(draw, counts, margin, cell)
    draw.rectangle((margin, margin, margin + columns * cell, margin + rows * cell), outline="black")
    return picture


def _most_confused(counts: np.ndarray, most: int) -> list[int]:
    """The classes of the most frequent confusions, ascending, of counts ``(classes, classes)``."""
    pairs = np.argwhere(counts)  # (pairs, label and predicted)
    pairs = pairs[pairs[:, 0] != pairs[:, 1]]
    order = np.argsort(-counts[tuple(pairs.T)], kind="stable")
    classes = dict.fromkeys([*pairs[order].ravel().tolist(), *range(len(counts))])
    return sorted(list(classes)[:most])


def _part(counts: np.ndarray, shown: list[int]) -> tuple[np.ndarray, list[str]]:
    """The counts of some classes, and the names of the columns that follow those of the classes."""
    part = counts[np.ix_(shown, shown)]
    others = counts[shown, :-1].sum(1) - part.sum(1)
    more = {"(others)": others, "(none)": counts[shown, -1]}
    more = {name: column for name, column in more.items() if column.any()}
    return np.column_stack([part, *more.values()]), list(more)


def _colours(counts: np.ndarray) -> np.ndarray:
    """Colours of the cells, uint8 ``(classes, columns, 3)``, for counts ``(classes, columns)``."""
    share = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    return _shade(share, np.eye(*counts.shape, dtype=bool))


def _shade(share: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The colours of shares of a row, uint8 ``(..., 3)``: green where they are right, else red."""
    colour = np.where(right[..., None], RIGHT, WRONG)
    return (255 - np.sqrt(share)[..., None] * (255 - colour)).round().astype(np.uint8)


def _scale(width: int, font: Any) -> Image.Image:
    """The colours of the shares from 0 to 1, those that are right above those that are wrong."""
    share = np.linspace(0, 1, width - 2)[None].repeat(2, 0)  # (2, width - 2)
    bars = _shade(share, np.array([[True], [False]])).repeat(BAR, 0)
    picture = Image.new("RGB", (width, 34 + 2 * BAR), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((0, 0), SCALE, "black", font)
    draw.rectangle((0, 16, width - 1, 17 + 2 * BAR), outline="grey")
    picture.paste(Image.fromarray(bars), (1, 17))
    for text, place in TICKS.items():
        x, length = place * (width - 1), font.getlength(text)
        draw.text((np.clip(x - length / 2, 0, width - length), 19 + 2 * BAR), text, "black", font)
    return picture


def _write_numbers(draw: Any, counts: np.ndarray, margin: int, cell: int) -> None:
    """Write the numbers of cells above 0 into them, unless one does not fit."""
    longest = max(map(str, counts.ravel().tolist()), key=len)
    fonts = (ImageFont.load_default(size) for size in SIZES)
    font = next((font for font in fonts if font.getlength(longest) <= cell - 4), None)
    if font is None:
        return
    bright = _colours(counts) @ [0.299, 0.587, 0.114] > 115  # (classes, columns)
    for row, column in np.argwhere(counts).tolist():
        x, y = (margin + i * cell + cell // 2 for i in (column, row))
        colour = "black" if bright[row, column] else "white"
        draw.text((x, y), str(counts[row, column]), colour, font, anchor="mm")


def _turned(names: list[tuple[str, Any]], length: int, cell: int) -> Image.Image:
    """Write names in their fonts from bottom to top, one per column."""
    lying = Image.new("RGB", (length, len(names) * cell), "white")
    draw = ImageDraw.Draw(lying)
    for i, (name, font) in enumerate(names):
        draw.text((GAP, i * cell + cell // 2), name, "black", font, anchor="lm")
    return lying.transpose(Image.Transpose.ROTATE_90)


def _name(name: str, size: int) -> tuple[str, Any]:
    """A name, shortened, and a font of some size that has its characters."""
    text, file = lettering(name if len(name) <= MOST_LETTERS else name[: MOST_LETTERS - 1] + "…")
    return text, font_of_size(file, size)
