"""A map over a clip as heat over its frames, with a legend."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from hiera_video.visualize.reconstruction import GAP, picture_sheet, to_image
from hiera_video.visualize.text import font_of_size, lettering, shortened

# The colours of matplotlib's "inferno" at equal steps from 0 to 1: their lightness grows evenly, so
# they can be told apart with any colour vision, and in grey.
INFERNO = (
    *((0, 0, 4), (33, 12, 74), (87, 16, 110), (138, 34, 106), (188, 55, 84)),
    *((228, 90, 49), (249, 142, 9), (249, 203, 53), (252, 255, 164)),
)
BOX = (0, 230, 230)  # cyan
MOST_HEAT = 0.85  # share of the colour where the map is 1; the rest is the frame
FONT, ROW = 13, 20  # pixels: height of letters and of a line of text
COLUMNS = 8  # most frames in a row of a sheet


def heat_colours(values: np.ndarray) -> np.ndarray:
    """Colours of numbers in [0, 1]: float32 of any shape to uint8 with a last axis of RGB."""
    steps = np.linspace(0, 1, len(INFERNO))
    channels = [np.interp(values, steps, channel) for channel in np.transpose(INFERNO)]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


def heat_over(clip: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay a map over a clip: grey where it is 0, and the more coloured the higher it is.

    Args:
        clip: uint8 ``(T, H, W, 3)``.
        heat: float ``(T, H, W)`` in [0, 1].

    Returns:
        uint8 ``(T, H, W, 3)``.
    """
    grey = clip @ np.array([0.299, 0.587, 0.114], np.float32)  # luma of ITU-R BT.601
    share = MOST_HEAT * heat[..., None]
    mixed = (1 - share) * grey[..., None] + share * heat_colours(heat)
    return mixed.round().astype(np.uint8)


def outlined(clip: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Draw a box into all frames, in the one bright colour that heat does not have.

    Args:
        clip: uint8 ``(T, H, W, 3)``.
        box: x1, y1, x2, y2 in [0, 1] of the frame.

    Returns:
        uint8 ``(T, H, W, 3)``.
    """
    height, width = clip.shape[1:3]
    x1, y1, x2, y2 = np.multiply(box, [width - 1, height - 1] * 2).round().astype(int).tolist()
    frames = [Image.fromarray(frame) for frame in clip]
    for draw in map(ImageDraw.Draw, frames):
        draw.rectangle((x1, y1, x2, y2), outline="black", width=4)
        draw.rectangle((x1, y1, x2, y2), outline=BOX, width=2)
    return np.stack([np.asarray(frame) for frame in frames])


def enlarged(clip: np.ndarray, side: int) -> np.ndarray:
    """Repeat the pixels of a clip ``(T, H, W, ...)`` until its short side has at least ``side``."""
    times = max(1, -(-side // min(clip.shape[1:3])))
    return clip.repeat(times, axis=1).repeat(times, axis=2)


def heat_sheet(
    clip: np.ndarray, painted: np.ndarray, title: str, scale: str, times: np.ndarray
) -> Image.Image:
    """Frames of a clip above the same with heat, in rows of at most 8, with a title and a legend.

    Args:
        clip: uint8 ``(T, H, W, 3)``.
        painted: the same with its map, such as from `heat_over`.
        title: a line at the top.
        scale: what the end of the legend stands for.
        times: of the frames, ``(T,)``, seconds; written into them.

    Returns:
        RGB.
    """
    columns = next(n for n in range(min(COLUMNS, len(clip)), 0, -1) if len(clip) % n == 0)
    frames = np.stack([_numbered(clip, times), painted])  # (2, T, H, W, 3)
    rows = frames.reshape(2, -1, columns, *clip.shape[1:]).swapaxes(0, 1)  # (B, 2, columns, ...)
    sheet = to_image(picture_sheet(torch.from_numpy(np.ascontiguousarray(rows))))
    return with_legend(sheet, title, scale)


def with_legend(picture: Image.Image, title: str, scale: str) -> Image.Image:
    """Put a title above a picture, and below it the colours with what their ends stand for."""
    title, title_file = lettering(title)
    words, file = lettering(f"1: {scale}")
    title_font, font = font_of_size(title_file, FONT), font_of_size(file, FONT)
    whole = Image.new("RGB", (picture.width, picture.height + 2 * ROW), "white")
    whole.paste(picture, (0, ROW))
    draw = ImageDraw.Draw(whole)
    title = shortened(title, title_font, picture.width - GAP)
    draw.text((GAP, ROW // 2), title, "black", title_font, anchor="lm")
    middle = picture.height + ROW + ROW // 2
    bar = max(40, min(160, picture.width // 5))
    draw.text((GAP, middle), "0", "black", font, anchor="lm")
    start = 3 * GAP + round(font.getlength("0"))
    ramp = np.broadcast_to(np.linspace(0, 1, bar, dtype=np.float32), (1, ROW - GAP, bar))
    colours = heat_over(np.full((*ramp.shape, 3), 128, np.uint8), ramp)[0]
    whole.paste(Image.fromarray(colours), (start, picture.height + ROW + GAP // 2))
    start += bar + 2 * GAP
    words = shortened(words, font, picture.width - start - GAP)
    draw.text((start, middle), words, "black", font, anchor="lm")
    return whole


def _numbered(clip: np.ndarray, times: np.ndarray) -> np.ndarray:
    """The clip with the time of each frame in a corner."""
    font = ImageFont.load_default(FONT)
    frames = []
    for frame, time in zip(clip, times, strict=True):
        picture = Image.fromarray(frame)
        draw = ImageDraw.Draw(picture)
        draw.text((GAP, 2), f"{time:.2f} s", "white", font, stroke_width=2, stroke_fill="black")
        frames.append(np.asarray(picture))
    return np.stack(frames)
