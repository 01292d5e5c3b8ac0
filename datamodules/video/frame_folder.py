"""Videos that were extracted to folders of pictures, read as a video file is.

PySlowFast's layout: ``<video>/<video>_000001.jpg`` and so on, at a constant rate.
"""

import os
import re
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from datamodules.errors import VideoDecodeError
from datamodules.video.decoding import Box, checked_crop, checked_size, scale

_PICTURE = re.compile(r"(.*?)(\d+)(\.(?:jpg|jpeg|png))", re.IGNORECASE)
# What Pillow raises of damaged files, and of those that would fill the memory.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_HALF_TICK = 1e-6  # of a frame: times that were computed fall just short of its start


class _Layout(NamedTuple):
    """Names and size of a folder's pictures; small, as each worker keeps that of all folders."""

    prefix: str
    digits: int
    suffix: str
    first: int
    pictures: int
    width: int
    height: int

    def name(self, index: int) -> str:
        return f"{self.prefix}{self.first + index:0{self.digits}d}{self.suffix}"


class FrameFolder:
    """A folder of numbered pictures, with the interface of `VideoFile`.

    Args:
        path: the folder.
        rate: pictures a second.

    Raises:
        VideoDecodeError: there is no such folder, or it has no pictures, or numbers are missing.
    """

    def __init__(self, path: str, rate: float = 30.0) -> None:
        self.path, self.rate = path, Fraction(rate).limit_denominator(100_000)
        try:
            self._layout = _layout(path, os.stat(path).st_mtime_ns)
        except OSError as error:
            raise VideoDecodeError(path, error.strerror or str(error)) from None
        self.width, self.height = self._layout.width, self._layout.height

    def __enter__(self) -> "FrameFolder":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    @property
    def duration(self) -> float:
        """Seconds from the start of the first picture to the end of the last."""
        return float(self._layout.pictures / self.rate)

    def frames_at(
        self,
        seconds: Iterable[float],
        size: int | tuple[int, int] | None = None,
        crop: Box | None = None,
    ) -> np.ndarray:
        """As `VideoFile.frames_at`."""
        return self.clips_at([(seconds, crop)], size)[0]

    def clips_at(
        self,
        clips: Iterable[tuple[Iterable[float], Box | None]],
        size: int | tuple[int, int] | None = None,
    ) -> list[np.ndarray]:
        """As `VideoFile.clips_at`; each picture is decoded once."""
        results: list[np.ndarray] = []
        wanted: list[tuple[int, int, int]] = []  # picture, clip, place in it
        boxes: list[Box] = []
        for seconds, crop in clips:
            frames = np.asarray(list(seconds), np.float64) * float(self.rate)
            if not np.isfinite(frames).all():
                raise ValueError(f"{self.path}: times must be finite")
            numbers = np.floor(frames + _HALF_TICK).clip(0, self._layout.pictures - 1).astype(int)
            wanted += [(number, len(results), i) for i, number in enumerate(numbers.tolist())]
            boxes.append(checked_crop(crop, self.height, self.width))
            shape = (len(numbers), *checked_size(size, boxes[-1]), 3)
            results.append(np.empty(shape, np.uint8))
        shown, picture = -1, np.empty(0)
        for number, clip, i in sorted(wanted):
            if number != shown:
                shown, picture = number, self._picture(number)
            x1, y1, x2, y2 = boxes[clip]
            scale(picture[y1:y2, x1:x2], results[clip][i])
        return results

    def _picture(self, number: int) -> np.ndarray:
        path = os.path.join(self.path, self._layout.name(number))
        try:
            with Image.open(path) as image:
                pixels = np.array(image.convert("RGB"))
        except _UNREADABLE as error:
            raise VideoDecodeError(path, str(error)) from None
        if pixels.shape[:2] != (self.height, self.width):
            raise VideoDecodeError(path, "the frame size changes within the folder")
        return pixels


def holds_pictures(path: str) -> bool:
    """Whether a folder has numbered pictures; quick where its first entry is one."""
    try:
        with os.scandir(path) as entries:
            return any(_PICTURE.fullmatch(entry.name) for entry in entries)
    except OSError:  # no folder, or none that can be read
        return False


@lru_cache(maxsize=100_000)
def _layout(path: str, _changed: int) -> _Layout:
    """Look at a folder, once for each state of it: of 15 minutes it has 27,000 names."""
    found = [match for name in os.listdir(path) if (match := _PICTURE.fullmatch(name))]
    if not found:
        raise VideoDecodeError(path, "no numbered .jpg or .png pictures")
    kinds = Counter((match[1], match[3]) for match in found)
    if len(kinds) > 1:
        raise VideoDecodeError(path, f"pictures of several names, such as {found[0][0]}")
    numbers = sorted(int(match[2]) for match in found)
    ((prefix, suffix),) = kinds
    digits = min(len(match[2]) for match in found)
    missing = np.flatnonzero(np.diff(numbers) != 1)
    if len(missing):
        after = numbers[int(missing[0])]
        raise VideoDecodeError(path, f"the picture after number {after} is missing, or there twice")
    layout = _Layout(prefix, digits, suffix, numbers[0], len(numbers), 0, 0)
    try:
        with Image.open(os.path.join(path, layout.name(0))) as image:
            return layout._replace(width=image.width, height=image.height)
    except _UNREADABLE as error:
        raise VideoDecodeError(path, str(error)) from None
