"""Frames out of one video file, by time: exact, fast, or a clear error.

The file is opened by `container`, its stream decoded by `frame_reader`; here is what a user calls,
and the way from a decoded picture to the pixels that were asked for.
"""

import math
import operator
import os
from collections.abc import Iterable
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from datamodules.container import PYAV, VideoDecodeError, errors_of, nearest
from datamodules.frame_reader import FrameReader

__all__ = ["VideoDecodeError", "VideoFile"]

Box = tuple[int, int, int, int]

# When it shrinks, swscale widens the filter: the antialiasing. Without the second flag, older
# releases halve the colour resolution of RGB; they lack the flags' names, too.
_BILINEAR = 0x2 | 0x4000  # SWS_BILINEAR | SWS_FULL_CHR_H_INP
# From 17 on, converting starts a thread per core unless told otherwise.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if PYAV >= 17 else {}


class VideoFile:
    """A video file, open for reading. Use it in a ``with`` statement, in one process and thread.

    Args:
        path: a local file.
        threads: decoder threads; one is best in data-loader workers.

    Raises:
        VideoDecodeError: missing, empty, no video, or a container that refers to other files.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1):
        self._reader: FrameReader | None = None
        self.path = os.fsdecode(path)
        self._to_rgb = VideoReformatter()
        self._to_size = VideoReformatter()
        self._duration: float | None = None
        with errors_of(self.path):
            self._reader = FrameReader(self.path, threads)

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # PyAV's containers are reference cycles: left to the garbage collector, they may be freed in a
    # forked worker, which then waits forever for decoder threads that it does not have.
    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Free the file and its decoder, at once. Using the object later is a ValueError."""
        if self._reader is not None:
            self._reader.close()
        self._reader = None

    @property
    def rate(self) -> Fraction:
        """Frames per second, on average."""
        return self._opened().rate

    @property
    def height(self) -> int:
        """Pixels from top to bottom of a displayed frame."""
        return self._displayed_size()[0]

    @property
    def width(self) -> int:
        """Pixels from left to right of a displayed frame."""
        return self._displayed_size()[1]

    @property
    def duration(self) -> float:
        """Seconds from the start of the first displayed frame to the end of the last.

        MP4 and MOV state it in their header. In other files the packets tell, which are then read
        once, without decoding: the last group of pictures of Matroska and WebM, else all of them.
        """
        reader = self._opened()
        if self._duration is None:
            with errors_of(self.path):
                start = reader.first().pts
                self._duration = float((reader.end() - start) * reader.time_base)
        return self._duration

    def frames_at(
        self,
        seconds: Iterable[float],
        size: int | tuple[int, int] | None = None,
        crop: Box | None = None,
    ) -> np.ndarray:
        """Return the frames on display at some times.

        On display is the last frame that starts at or before the time, with half a tick of the
        stream's clock forgiven; before 0 it is the first frame, past the end the last. 0 is the
        start of the first displayed frame, whatever its timestamp.

        Args:
            seconds: the times, in any order, repeats allowed.
            size: ``(height, width)`` to scale to, or the length of the short side. Bilinear,
                antialiased when shrinking.
            crop: ``(x1, y1, x2, y2)`` to cut out before scaling, in displayed pixels.

        Returns:
            RGB, uint8 ``(n, height, width, 3)``, in the order of ``seconds``: the frame's own
            pixels, and with ``size`` the crop of these pixels, scaled. Colours follow the matrix
            and range of the stream; an untagged one is BT.601 in limited range (FFmpeg's default).
            Pixels that are not square are left as they are.

        Raises:
            ValueError: a time that is not finite; a crop outside of the frame; an empty result.
            VideoDecodeError: a wanted frame is damaged, or cut off the end of the file.
        """
        reader = self._opened()
        times = [float(t) for t in seconds]
        if not all(map(math.isfinite, times)):
            raise ValueError(f"{self.path}: times must be finite")
        box = _checked_crop(crop, *self._displayed_size())
        height, width = _checked_size(size, box)
        clip = np.empty((len(times), height, width, 3), np.uint8)
        shown, pixels = None, clip[:0]
        with errors_of(self.path):
            ticks = [reader.tick(t) for t in times]
            for i in sorted(range(len(times)), key=ticks.__getitem__):
                frame = reader.frame_at(ticks[i])
                if frame is not shown:
                    shown, pixels = frame, self._pixels(frame, box, height, width)
                clip[i] = pixels
        return clip

    def _opened(self) -> "FrameReader":
        if self._reader is None:
            raise ValueError(f"{self.path}: the file is closed")
        return self._reader

    def _displayed_size(self) -> tuple[int, int]:
        reader = self._opened()
        with errors_of(self.path):
            frame = reader.first()
        transposed, _, _ = _orientation(frame)
        return (frame.width, frame.height) if transposed else (frame.height, frame.width)

    def _pixels(self, frame: Any, box: Box, height: int, width: int) -> np.ndarray:
        """Return the crop of a frame as displayed, scaled: uint8 ``(height, width, 3)``.

        The whole frame becomes RGB first. That costs little beside decoding, and a crop of the
        subsampled chroma planes would be off by a pixel at odd offsets.
        """
        rgb = _displayed(frame, self._to_rgb)
        if rgb.shape[:2] != self._displayed_size():
            raise VideoDecodeError(self.path, "the frame size changes within the file")
        x1, y1, x2, y2 = box
        rgb = rgb[y1:y2, x1:x2]
        if rgb.shape[:2] == (height, width):
            return rgb
        # Separate planes are twice as fast to write as interleaved RGB.
        part = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        return self._to_size.reformat(
            part, width, height, "gbrp", interpolation=_BILINEAR, **_ONE_THREAD
        ).to_ndarray()


def _orientation(frame: Any) -> tuple[bool, bool, bool]:
    """How a stored frame is displayed: transpose, then flip top to bottom, then left to right."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return False, False, False
    # Stored (column, row) goes to (a * column + c * row, b * column + d * row).
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return False, d < 0, a < 0
    return True, b < 0, c < 0


def _displayed(frame: Any, reformatter: VideoReformatter) -> np.ndarray:
    """All RGB pixels of a frame as displayed: uint8 ``(height, width, 3)``, maybe a view."""
    # PyAV < 17 takes every stream as BT.601 unless ranges are named, and a matrix that differs
    # from the stream's. Neither means anything for RGB itself.
    other = Colorspace.ITU709 if frame.colorspace == Colorspace.ITU601 else Colorspace.ITU601
    rgb = reformatter.reformat(
        frame,
        format="rgb24",
        src_color_range=frame.color_range,
        dst_color_range=ColorRange.JPEG,
        dst_colorspace=other,
        **_ONE_THREAD,
    ).to_ndarray()
    transposed, upside_down, mirrored = _orientation(frame)
    rgb = rgb.transpose(1, 0, 2) if transposed else rgb
    return rgb[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def _checked_crop(crop: Box | None, height: int, width: int) -> Box:
    if crop is None:
        return 0, 0, width, height
    x1, y1, x2, y2 = map(operator.index, crop)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(f"crop {tuple(crop)} is empty or not within {width}x{height} pixels")
    return x1, y1, x2, y2


def _checked_size(size: int | tuple[int, int] | None, box: Box) -> tuple[int, int]:
    """Resolve to (height, width); the long side of a single number is rounded."""
    height, width = box[3] - box[1], box[2] - box[0]
    if isinstance(size, tuple | list):
        height, width = map(operator.index, size)
    elif size is not None:
        scale = Fraction(operator.index(size), min(height, width))
        height, width = nearest(height * scale), nearest(width * scale)
    if min(height, width) < 1:
        raise ValueError(f"size {size} is not positive")
    return height, width
