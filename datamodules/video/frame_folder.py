"""Videos that were extracted to folders of pictures, read like video files.

The layout is PySlowFast's: ``<video>/<video>_000001.jpg`` and so on, at a constant rate.
"""

import os
import re
from collections import Counter
from collections.abc import Callable, Iterable
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from PIL import Image

from datamodules.errors import VideoDecodeError
from datamodules.video.container import decode_error
from datamodules.video.decoding import checked_crop, checked_size, scale
from datamodules.video.frames import Crop, Frames

_PICTURE = re.compile(r"((?!\.).*?)(\d+)(\.(?:jpg|jpeg|png))", re.IGNORECASE)  # not hidden
# What Pillow raises for damaged files, and for pictures that would fill the memory.
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
_TOLERANCE = 1e-6  # of a frame: a computed time may fall just short of the frame's start


class _Layout(NamedTuple):
    """Names and size of a folder's pictures. Small: each worker keeps one for every folder."""

    prefix: str
    digits: int  # of a picture's number, at least
    suffix: str
    first: int  # number of the first picture
    num_pictures: int
    width: int  # pixels
    height: int  # pixels

    def name(self, index: int) -> str:
        """File name of picture ``index``, counted from 0."""
        return f"{self.prefix}{self.first + index:0{self.digits}d}{self.suffix}"


class FrameFolder(Frames):
    """A folder of numbered pictures, with the interface of `VideoFile`.

    Args:
        path: the folder.
        rate: pictures per second.

    Raises:
        VideoDecodeError: there is no such folder, it has no pictures, or a number is missing.
    """

    def __init__(self, path: str, rate: float = 30.0) -> None:
        self.path, self.rate = path, Fraction(rate).limit_denominator(100_000)
        try:
            self._layout = _layout(path, os.stat(path).st_mtime_ns)
        except OSError as error:
            raise decode_error(path, error) from None
        self.width, self.height = self._layout.width, self._layout.height

    def close(self) -> None:
        """Do nothing: no file stays open."""

    @property
    def num_frames(self) -> int:
        """Number of pictures."""
        return self._layout.num_pictures

    @property
    def duration(self) -> float:
        """Seconds from the start of the first picture to the end of the last."""
        return float(self._layout.num_pictures / self.rate)

    def clips_at(
        self,
        clips: Iterable[tuple[Iterable[float], Crop | None]],
        size: int | tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> list[np.ndarray]:
        """Return several clips, as `VideoFile.clips_at` does; each picture is decoded once."""
        results: list[np.ndarray] = []
        wanted: list[tuple[int, int, int]] = []  # picture, index of the clip, index in the clip
        crops: list[Crop] = []
        for seconds, crop in clips:
            frames = np.asarray(list(seconds), np.float64) * float(self.rate)
            if not np.isfinite(frames).all():
                raise ValueError(f"{self.path}: times must be finite")
            last = self._layout.num_pictures - 1
            indices = np.floor(frames + _TOLERANCE).clip(0, last).astype(int)
            wanted += [(index, len(results), i) for i, index in enumerate(indices.tolist())]
            crops.append(checked_crop(crop, self.height, self.width))
            shape = (len(indices), *checked_size(size, crops[-1]), 3)
            results.append(np.empty(shape, np.uint8))
        shown, picture = -1, np.empty(0)
        for index, clip, i in sorted(wanted):
            if index != shown:
                shown, picture = index, self._picture(index)
            x1, y1, x2, y2 = crops[clip]
            scale(picture[y1:y2, x1:x2], results[clip][i], interpolation)
        return results

    def read(self, pictures: int | None, alive: Callable[[], None]) -> None:
        """Decode the first so many pictures, None: all; ``alive`` is called before each.

        Raises:
            VideoDecodeError: a picture cannot be read; its file is named in the reason.
        """
        for index in range(self._layout.num_pictures if pictures is None else pictures):
            alive()
            try:
                self._picture(index)
            except VideoDecodeError as error:
                reason = f"{self._layout.name(index)}: {error.reason}"
                raise type(error)(self.path, reason) from None

    def _picture(self, index: int) -> np.ndarray:
        """A whole picture: RGB, uint8 ``(height, width, 3)``."""
        path = os.path.join(self.path, self._layout.name(index))
        try:
            with Image.open(path) as image:
                pixels = np.array(image.convert("RGB"))
        except _UNREADABLE as error:
            raise type(decode_error(path, error))(path, str(error)) from None
        if pixels.shape[:2] != (self.height, self.width):
            raise VideoDecodeError(path, "the frame size changes within the folder")
        return pixels


def holds_pictures(path: str) -> bool:
    """Whether a folder holds numbered pictures; quick where its first entry is one."""
    try:
        with os.scandir(path) as entries:
            return any(_PICTURE.fullmatch(entry.name) for entry in entries)
    except OSError:  # no folder, or none that can be read
        return False


@lru_cache(maxsize=100_000)
def _layout(path: str, _changed: int) -> _Layout:
    """Names and size of a folder's pictures, read once until it changes.

    Fifteen minutes of video are 27,000 names.
    """
    matches = [match for name in os.listdir(path) if (match := _PICTURE.fullmatch(name))]
    if not matches:
        raise VideoDecodeError(path, "no numbered .jpg or .png pictures")
    kinds = Counter((match[1], match[3]) for match in matches)
    if len(kinds) > 1:
        raise VideoDecodeError(path, f"pictures of several names, such as {matches[0][0]}")
    numbers = sorted(int(match[2]) for match in matches)
    ((prefix, suffix),) = kinds
    digits = min(len(match[2]) for match in matches)
    gaps = np.flatnonzero(np.diff(numbers) != 1)
    if len(gaps):
        before = numbers[int(gaps[0])]
        raise VideoDecodeError(path, f"the picture after number {before} is missing or a duplicate")
    layout = _Layout(prefix, digits, suffix, numbers[0], len(numbers), 0, 0)
    try:
        with Image.open(os.path.join(path, layout.name(0))) as image:
            return layout._replace(width=image.width, height=image.height)
    except _UNREADABLE as error:
        raise type(decode_error(path, error))(path, str(error)) from None
