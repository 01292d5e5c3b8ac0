"""Boxes and masks on a frame, each with a plate: a person's actions, or an object's class."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from hiera_video.visualize.text import font_of_size, lettering, shortened

# The bright ones of Okabe and Ito (2008), distinct for all kinds of colour vision.
COLOURS = ((230, 159, 0), (86, 180, 233), (240, 228, 66), (0, 200, 140), (204, 121, 167))
PLATE_ALPHA = 225
MASK_ALPHA = 120
LEAST_TEXT = 11  # pixels; compression makes smaller letters illegible
TEXT_SHARE = 0.026  # size of letters by the height of the frame
MOST_LABELS = 5  # for one person

Rectangle = tuple[int, int, int, int]


class LabelledBox(NamedTuple):
    """A person or an object to draw.

    Attributes:
        box: x1, y1, x2, y2 in [0, 1] of the frame.
        labels: names and scores, best first: of a person's actions, or of an object's class.
        mask: bool ``(height, width)`` of the frame; None: only the box is drawn.
    """

    box: Sequence[float]
    labels: Sequence[tuple[str, float]] = ()
    mask: np.ndarray | None = None


def laid_over(picture: np.ndarray, overlay: Image.Image) -> np.ndarray:
    """Lay an overlay over a frame.

    Args:
        picture: uint8 ``(height, width, 3)``.
        overlay: RGBA, of the same size.

    Returns:
        uint8 ``(height, width, 3)``.
    """
    image = Image.fromarray(picture)
    if (used := overlay.getbbox()) is not None:
        part = overlay.crop(used)
        image.paste(part, used[:2], part)
    return np.asarray(image)


def box_overlay(width: int, height: int, people: Sequence[LabelledBox]) -> Image.Image:
    """Draw boxes, masks and labels on a transparent picture, to be laid over frames.

    Masks are tinted in the colours of their boxes, the smaller ones on top. A plate lists the
    actions of a person, or the class of an object, at most `MOST_LABELS`. It is placed above the
    box, else below it, else inside, where it covers the least of other plates. The size of the
    letters grows with the frame. A name that is too wide for the frame is cut.

    Args:
        width: width of the frame, pixels.
        height: height of the frame, pixels.
        people: the persons or objects to draw.

    Returns:
        RGBA, ``(width, height)``, transparent where nothing is drawn.
    """
    overlay = Image.new("RGBA", (width, height))
    draw = ImageDraw.Draw(overlay)
    size = max(LEAST_TEXT, round(height * TEXT_SHARE))
    line = max(2, round(size / 8))
    # From left to right: neighbours differ, and colours stay the same until somebody overtakes.
    people = sorted(people, key=lambda person: person.box[0] + person.box[2])
    boxes = [_pixels(person.box, width, height) for person in people]
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(people))]
    masks = [(p.mask, c) for p, c in zip(people, colours, strict=True) if p.mask is not None]
    for mask, colour in sorted(masks, key=lambda masked: -masked[0].sum()):
        overlay.paste((*colour, MASK_ALPHA), mask=Image.fromarray(mask))
    for box, colour in zip(boxes, colours, strict=True):
        for grown, fill in ((1, (0, 0, 0)), (0, colour)):  # a dark rim for bright backgrounds
            x1, y1, x2, y2 = box
            rim = (x1 - grown, y1 - grown, x2 + grown, y2 + grown)
            draw.rectangle(rim, outline=(*fill, 255), width=line + 2 * grown)
    plates: list[Rectangle] = []
    for person, box, colour in zip(people, boxes, colours, strict=True):
        rows = _rows(person.labels, size, width - 2 * size)
        if not rows:
            continue
        plate = _place(box, _plate_size(rows, size), plates, (width, height))
        plates.append(plate)
        _draw_plate(draw, plate, rows, size, colour)
    return overlay


def _pixels(box: Sequence[float], width: int, height: int) -> Rectangle:
    """Corners of a box in pixels, clipped to the frame."""
    x1, x2 = (round(min(max(x, 0.0), 1.0) * (width - 1)) for x in (box[0], box[2]))
    y1, y2 = (round(min(max(y, 0.0), 1.0) * (height - 1)) for y in (box[1], box[3]))
    return x1, y1, max(x1, x2), max(y1, y2)


class _Row(NamedTuple):
    """The name of an action, its score as text, and a font that has the name's characters."""

    name: str
    score: str
    font: Any


def _rows(labels: Sequence[tuple[str, float]], size: int, most: float) -> list[_Row]:
    """Names, cut to ``most`` pixels with their scores."""
    rows = []
    for name, score in labels[:MOST_LABELS]:
        text, file = lettering(name)
        font, number = font_of_size(file, size), f"{score:.2f}"
        text = shortened(text, font, most - font.getlength(f"  {number}"))
        rows.append(_Row(text, number, font))
    return rows


def _plate_size(rows: Sequence[_Row], size: int) -> tuple[int, int]:
    longest = max(row.font.getlength(f"{row.name}  {row.score}") for row in rows)
    return round(longest + 1.2 * size), round(len(rows) * _row_height(size) + 0.2 * size)


def _row_height(size: int) -> float:
    return 1.2 * size


def _place(
    box: Rectangle, plate: tuple[int, int], others: Sequence[Rectangle], frame: tuple[int, int]
) -> Rectangle:
    """Find the first place for a plate that covers the least of other plates."""
    (x1, y1, x2, y2), (w, h) = box, plate
    places = []
    for left in (x1, x2 + 1 - w):
        for top in (y1 - h, y2 + 1, y1 + 1, y2 - h):
            x = min(max(left, 0), max(0, frame[0] - w))
            y = min(max(top, 0), max(0, frame[1] - h))
            place = x, y, x + w, y + h
            covered = sum(_common(place, other) for other in others)
            places.append((covered, y != top, place))  # moved into the frame, it covers the person
    return min(places, key=lambda ranked: ranked[:2])[2]


def _common(one: Sequence[int], other: Rectangle) -> int:
    """Pixels that two rectangles share."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    return max(0, width) * max(0, height)


def _draw_plate(
    draw: Any,
    plate: Rectangle,
    rows: Sequence[_Row],
    size: int,
    colour: tuple[int, int, int],
) -> None:
    """Draw white names and coloured scores on black, with the person's colour at the left."""
    x1, y1, x2, y2 = plate
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=(0, 0, 0, PLATE_ALPHA))
    draw.rectangle((x1, y1, x1 + max(2, size // 5), y2 - 1), fill=(*colour, 255))
    for i, (name, number, font) in enumerate(rows):
        middle = y1 + 0.1 * size + (i + 0.5) * _row_height(size)
        draw.text((x1 + 0.6 * size, middle), name, (255, 255, 255, 255), font, anchor="lm")
        draw.text((x2 - 0.6 * size, middle), number, (*colour, 255), font, anchor="rm")
