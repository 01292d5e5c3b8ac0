"""The most probable classes on a frame: names, bars and numbers on a plate at the lower left."""

from collections.abc import Sequence

from PIL import Image, ImageDraw

from hiera_video.visualize.boxes import COLOURS, LEAST_TEXT, PLATE_ALPHA, TEXT_SHARE
from hiera_video.visualize.text import font_of_size, lettering, shortened

# In heights of a letter; LEAST_BAR: of a plate with bars.
WIDEST, LEAST_BAR, BAR, NUMBER, PADDING, ROW = 34, 14, 9, 2.8, 0.6, 1.35
MOST_COVERED = 0.5  # of the height of the frame
TRACK = (90, 90, 90, 255)  # behind a bar


def caption_overlay(width: int, height: int, classes: Sequence[tuple[str, float]]) -> Image.Image:
    """Draw classes on a transparent picture, to be laid over frames.

    The size of the plate depends on the frame and on the number of classes only, so that it stands
    still while the classes change. Rows that would cover more than half of the frame are left out,
    and names that are too long are cut.

    Args:
        width: width of the frame, pixels.
        height: height of the frame, pixels.
        classes: names and probabilities in [0, 1], the most probable first.

    Returns:
        RGBA, ``(width, height)``, transparent where nothing is drawn.
    """
    overlay = Image.new("RGBA", (width, height))
    size = max(LEAST_TEXT, round(min(width, height) * TEXT_SHARE))
    row, padding = round(ROW * size), round(PADDING * size)
    classes = classes[: max(1, int((MOST_COVERED * height - 2 * padding) / row))]
    if not classes:
        return overlay
    margin = min(padding, width // 20)
    x1, x2 = margin, min(width - margin, margin + WIDEST * size)
    y2 = height - margin
    y1 = y2 - row * len(classes) - padding
    number_right = x2 - padding
    bar_right = round(number_right - NUMBER * size)
    # A narrow frame keeps more of its width for the names, a tiny one all of it.
    bar_left = bar_right - (min(BAR * size, (x2 - x1) // 4) if x2 - x1 > LEAST_BAR * size else 0)
    draw = ImageDraw.Draw(overlay)
    draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=(0, 0, 0, PLATE_ALPHA))
    for i, (name, probability) in enumerate(classes):
        middle, colour = y1 + padding // 2 + (i + 0.5) * row, (*COLOURS[0], 255)
        text, file = lettering(name)
        font = font_of_size(file, size)
        text = shortened(text, font, bar_left - x1 - 2 * padding)
        draw.text((x1 + padding, middle), text, (255, 255, 255, 255), font, anchor="lm")
        top, bottom = middle - size // 3, middle + size // 3
        if bar_left < bar_right:
            draw.rectangle((bar_left, top, bar_right, bottom), fill=TRACK)
        filled = bar_left + round(min(max(probability, 0.0), 1.0) * (bar_right - bar_left))
        if filled > bar_left:
            draw.rectangle((bar_left, top, filled, bottom), fill=colour)
        number, file = lettering(f"{probability:.2f}")
        draw.text((number_right, middle), number, colour, font_of_size(file, size), anchor="rm")
    return overlay
