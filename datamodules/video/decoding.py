"""Frames out of one video file, by time: exact, fast, or a clear error.

The file is opened by `container`, its stream decoded by `frame_reader`; here is what a user calls,
and the way from a decoded picture to the pixels that were asked for.
"""

import math
import operator
import os
from collections.abc import Iterable
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import torch
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from datamodules.errors import VideoDecodeError
from datamodules.video.container import PYAV, Source, errors_of, nearest
from datamodules.video.frame_reader import FrameReader
from datamodules.video.orientation import Orientation, orientation

__all__ = ["VideoDecodeError", "VideoFile"]

Box = tuple[int, int, int, int]

# From 17 on, converting starts a thread per core unless told otherwise.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if PYAV >= 17 else {}


class VideoFile:
    """A video file, open for reading. Use it in a ``with`` statement, in one process and thread.

    Args:
        source: the path of a local file, or an object with a ``name`` and an ``open()`` that
            gives a file object: binary, seekable, its failures OSErrors (`container.Source`).
        threads: decoder threads; one is best in data-loader workers. Sound files give the same with
            any number; what is found out about damaged ones may differ.

    Raises:
        VideoDecodeError: missing, empty, no video, or a container that refers to other files.
    """

    def __init__(self, source: str | os.PathLike[str] | Source, threads: int = 1):
        self._reader: FrameReader | None = None
        if isinstance(source, str | os.PathLike):
            source = os.fsdecode(source)
        self.path = source if isinstance(source, str) else source.name
        self._to_rgb = VideoReformatter()
        self._duration: float | None = None
        self._layout: _Layout | None = None
        with errors_of(self.path):
            self._reader = FrameReader(source, threads)

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
                antialiased when shrinking, as Pillow does it.
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
        return self.clips_at([(seconds, crop)], size)[0]

    def clips_at(
        self,
        clips: Iterable[tuple[Iterable[float], Box | None]],
        size: int | tuple[int, int] | None = None,
    ) -> list[np.ndarray]:
        """Return several clips from one pass over the file; each is decoded but once.

        Args:
            clips: ``(seconds, crop)`` of each, as in `frames_at`.
            size: as in `frames_at`, of all.

        Returns:
            What `frames_at` returns, for each clip.

        Raises:
            ValueError, VideoDecodeError: as `frames_at`, for any of the clips.
        """
        reader = self._opened()
        boxes: list[Box] = []
        results: list[np.ndarray] = []
        wanted: list[tuple[int, int, int]] = []  # tick, clip, place in it
        for seconds, crop in clips:
            times = [float(t) for t in seconds]
            if not all(map(math.isfinite, times)):
                raise ValueError(f"{self.path}: times must be finite")
            box = checked_crop(crop, *self._displayed_size())
            with errors_of(self.path):
                wanted += [(reader.tick(t), len(results), i) for i, t in enumerate(times)]
            boxes.append(box)
            results.append(np.empty((len(times), *checked_size(size, box), 3), np.uint8))
        wanted.sort()
        shown, picture, parts = None, np.empty(0), {}
        with errors_of(self.path):
            frames = reader.frames_at([tick for tick, _, _ in wanted])
            for frame, (_, clip, i) in zip(frames, wanted, strict=True):
                if frame is not shown:
                    shown, picture, parts = frame, self._picture(frame), {}
                box = x1, y1, x2, y2 = boxes[clip]
                if box in parts:
                    results[clip][i] = parts[box]
                else:
                    scale(picture[y1:y2, x1:x2], results[clip][i])
                    parts[box] = results[clip][i]
        return results

    def _opened(self) -> "FrameReader":
        if self._reader is None:
            raise ValueError(f"{self.path}: the file is closed")
        return self._reader

    def _displayed_size(self) -> tuple[int, int]:
        layout = self._first_layout()
        if layout.turn.transposed:
            return layout.width, layout.height
        return layout.height, layout.width

    def _first_layout(self) -> "_Layout":
        """That of the first frame, which holds for all. PyAV's frames stay in memory once asked."""
        reader = self._opened()
        if self._layout is None:
            with errors_of(self.path):
                first = reader.first()
                self._layout = _Layout(first.height, first.width, orientation(first))
        return self._layout

    def _picture(self, frame: Any) -> np.ndarray:
        """All of a frame as displayed: uint8 ``(height, width, 3)``.

        That costs little beside decoding, and a crop of the subsampled chroma planes would be off
        by a pixel at odd offsets.
        """
        layout = self._first_layout()
        if (frame.height, frame.width) != (layout.height, layout.width):
            raise VideoDecodeError(self.path, "the frame size changes within the file")
        return displayed(frame, layout.turn, self._to_rgb)


def displayed(frame: Any, turn: Orientation, to_rgb: VideoReformatter) -> np.ndarray:
    """A decoded frame in RGB, turned for display: uint8 ``(height, width, 3)``."""
    rgb = _rgb(frame, to_rgb)
    transposed, upside_down, mirrored = turn
    rgb = rgb.transpose(1, 0, 2) if transposed else rgb
    if upside_down or mirrored:  # copied, as Torch has no negative strides
        rgb = rgb[:: -1 if upside_down else 1, :: -1 if mirrored else 1].copy()
    return rgb


def scale(rgb: np.ndarray, out: np.ndarray) -> None:
    """Scale RGB uint8 ``(h, w, 3)`` to the size of ``out``: to within a rounding, as Pillow does.

    This is `torch.nn.functional.interpolate`, into memory that is there: twice as fast as swscale,
    and six times as Pillow.
    """
    if rgb.shape == out.shape:
        out[:] = rgb
        return
    source, target = (torch.from_numpy(a).permute(2, 0, 1)[None] for a in (rgb, out))
    torch.ops.aten._upsample_bilinear2d_aa.out(source, out.shape[:2], False, out=target)


class _Layout(NamedTuple):
    """Size of stored frames, and how they are turned for display."""

    height: int
    width: int
    turn: Orientation


def _rgb(frame: Any, reformatter: VideoReformatter) -> np.ndarray:
    """All pixels of a frame as it is stored: uint8 ``(height, width, 3)``."""
    # PyAV < 17 takes every stream as BT.601 unless ranges are named, and a matrix that differs
    # from the stream's. Neither means anything for RGB itself.
    other = Colorspace.ITU709 if frame.colorspace == Colorspace.ITU601 else Colorspace.ITU601
    return reformatter.reformat(
        frame,
        format="rgb24",
        src_color_range=frame.color_range,
        dst_color_range=ColorRange.JPEG,
        dst_colorspace=other,
        **_ONE_THREAD,
    ).to_ndarray()


def checked_crop(crop: Box | None, height: int, width: int) -> Box:
    """The crop, or all of the picture; ValueError if it is empty or not within."""
    if crop is None:
        return 0, 0, width, height
    x1, y1, x2, y2 = map(operator.index, crop)
    if not (0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height):
        raise ValueError(f"crop {tuple(crop)} is empty or not within {width}x{height} pixels")
    return x1, y1, x2, y2


def checked_size(size: int | tuple[int, int] | None, box: Box) -> tuple[int, int]:
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
