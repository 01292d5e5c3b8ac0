"""Text on pictures: a font that has its characters, and names that fit."""

from functools import cache, lru_cache
from pathlib import Path
from typing import Any, NamedTuple

PLACEHOLDER = "□"  # for a character that no font here has
LAST_RESORT = "Last Resort High-Efficiency"  # comes with Matplotlib; all of it is placeholders


class Lettering(NamedTuple):
    """A text, and the font to write it in.

    Attributes:
        text: with a placeholder for each character that no font on this machine has.
        font: path of a TrueType or OpenType file.
    """

    text: str
    font: str


@lru_cache(1024)
def lettering(text: str) -> Lettering:
    """Choose a font: DejaVu Sans, or for other scripts a font of this machine that has them."""
    text = " ".join(text.encode("utf-8", "replace").decode().split())
    default = _dejavu()
    missing = frozenset(map(ord, text)) - _characters(default)
    if not missing:
        return Lettering(text, default)
    font = _font_with(frozenset(map(ord, text))) or default
    legible = (c if ord(c) in _characters(font) else PLACEHOLDER for c in text)
    return Lettering("".join(legible), font)


@cache
def font_of_size(font: str, size: int) -> Any:
    """Pillow's font of a file, with letters of so many pixels."""
    from PIL import ImageFont

    return ImageFont.truetype(font, size)


def shortened(text: str, font: Any, most: float) -> str:
    """Cut a text to a width, at least to two letters, and mark the cut with an ellipsis.

    Args:
        text: any text.
        font: Pillow's, in its size.
        most: pixels.
    """
    shown = text
    while len(shown) > 2 and font.getlength(shown) > most:
        shown = shown[:-2].rstrip() + "…"
    return shown


@cache
def _dejavu() -> str:
    """The font that comes with Matplotlib; it has Latin, Greek, Cyrillic, Arabic and arrows."""
    import matplotlib

    return str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf"))


@cache
def _font_with(characters: frozenset[int]) -> str | None:
    """A font of this machine that has all of these characters; None if there is none."""
    from matplotlib.font_manager import fontManager

    for entry in fontManager.ttflist:
        if entry.name != LAST_RESORT and characters <= _characters(entry.fname):
            return entry.fname
    return None


@cache
def _characters(font: str) -> frozenset[int]:
    """The characters that a font has, as code points; none if it cannot be read."""
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(font).get_charmap())
    except (OSError, RuntimeError):
        return frozenset()
