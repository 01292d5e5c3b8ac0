"""Playing a video from its first frame to its last, and writing one: a frame at a time."""

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

from datamodules.video.container import Source, errors_of, name_of
from datamodules.video.decoding import displayed
from datamodules.video.in_order import InOrder
from datamodules.video.orientation import orientation
from datamodules.video.sound import Sound

_BT709 = 1  # number of this matrix, these primaries and this transfer in H.273
_LIMITED = 1  # number of this range
_FRAME_DURATION = 1 << 8  # FFmpeg's AV_CODEC_FLAG_FRAME_DURATION: each frame has its own duration


class Shown(NamedTuple):
    """A frame, and when it is on display.

    Attributes:
        picture: RGB as displayed, uint8 ``(height, width, 3)``.
        start: seconds from the start of the first frame to the start of this one.
        end: the same to its end, when the next frame takes its place.
    """

    picture: np.ndarray
    start: Fraction
    end: Fraction


def play(source: str | Source) -> Generator[Shown, None, None]:
    """Yield all displayed frames of a file, each once; only one is in memory at a time.

    Args:
        source: a local file, or another source that `VideoFile` takes.

    Raises:
        VideoDecodeError: the file is damaged. Frames before the damage have been yielded.
    """
    name = name_of(source)
    to_rgb, turn, first = VideoReformatter(), None, 0
    with InOrder(source) as frames:
        for frame, start, end in frames:
            with errors_of(name):
                if turn is None:
                    turn, first = orientation(frame), start
                picture = displayed(frame, turn, to_rgb)
            tick = frames.time_base
            yield Shown(picture, (start - first) * tick, (end - first) * tick)


def play_every(source: str | Source, seconds: float) -> Iterator[Shown]:
    """Yield the first frame of each part of a video; only one or two are in memory at a time.

    Args:
        source: as in `play`.
        seconds: length of a part, above 0.

    Yields:
        The frame, which ends where the frame of the next part starts.

    Raises:
        VideoDecodeError: the file is damaged.
    """
    length, first = Fraction(str(seconds)), None  # 0.1 is a tenth
    with closing(play(source)) as frames:
        for shown in frames:
            if first is not None and shown.start // length == first.start // length:
                first = first._replace(end=shown.end)
                continue
            if first is not None:
                yield first
            first = shown
    if first is not None:
        yield first


class VideoWriter:
    """Writes pictures to an H.264 file (yuv420p, mp4). Use it in a ``with`` statement.

    Every player shows such a file. The format allows even sizes only: if a width or height is odd,
    the last column or row is repeated.

    Args:
        path: the file; its folder must exist.
        rate: frames per second, roughly; each frame's own times count.
        crf: quality of x264, from 0 (lossless) to 51 (worst).
        sound: of the file that the pictures come from; None: no sound.

    Raises:
        OSError: the file cannot be written.
    """

    time_base = Fraction(1, 90_000)

    def __init__(
        self,
        path: str | os.PathLike[str],
        rate: Fraction,
        crf: int = 20,
        sound: Sound | None = None,
    ) -> None:
        self._path, self._rate, self._crf, self._sound = Path(path), rate, crf, sound
        self._stream: Any = None
        self._last = -1
        self._reformatter = VideoReformatter()
        self._container = av.open(
            os.fspath(path), "w", format="mp4", options={"movflags": "+faststart"}
        )

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            with self._container:  # closes it
                if kind is None and self._stream is not None:
                    self._container.mux(self._stream.encode(None))
                    self._mux_sound(None)
        except FFmpegError as error:
            if kind is None:  # else the first error is the one to tell
                raise self._error(error) from error

    def write(self, shown: Shown) -> None:
        """Append a frame that is displayed after those before it.

        Args:
            shown: RGB uint8 ``(height, width, 3)``, of one size for all frames, and its times.

        Raises:
            OSError: the file cannot be written.
        """
        height, width = shown.picture.shape[:2]
        picture = np.pad(shown.picture, ((0, height % 2), (0, width % 2), (0, 0)), "edge")
        if self._stream is None:
            self._stream = self._open_stream(width + width % 2, height + height % 2)
        frame = self._reformatter.reformat(
            av.VideoFrame.from_ndarray(picture, format="rgb24"),
            format="yuv420p",
            src_color_range=ColorRange.JPEG,
            dst_color_range=ColorRange.MPEG,
            dst_colorspace=Colorspace.ITU709,
        )
        start, end = (round(time / self.time_base) for time in (shown.start, shown.end))
        frame.pts = self._last = max(start, self._last + 1)
        frame.time_base = self.time_base
        frame.duration = max(1, end - frame.pts)
        try:
            self._container.mux(self._stream.encode(frame))
            self._mux_sound(shown.end)
        except FFmpegError as error:
            raise self._error(error) from error

    def _mux_sound(self, until: Fraction | None) -> None:
        """Append the sound up to a time. Taking turns, the muxer keeps little in memory."""
        if self._sound is not None:
            for packet in self._sound.packets(until):
                self._container.mux(packet)

    def _open_stream(self, width: int, height: int) -> Any:
        # No B-frames: mp4 counts durations in decoding order, which these would change.
        options = {"crf": str(self._crf), "preset": "veryfast", "bf": "0"}
        rate = self._rate.limit_denominator(1001)
        stream: Any = self._container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        codec = stream.codec_context
        codec.time_base = self.time_base
        codec.colorspace = codec.color_primaries = codec.color_trc = _BT709
        codec.color_range = _LIMITED
        codec.flags |= _FRAME_DURATION
        if self._sound is not None:
            self._sound.add_to(self._container)
        return stream

    def _error(self, error: FFmpegError) -> OSError:
        return OSError(error.errno, error.strerror, str(self._path))
