"""A video file decoded once from its start to its end, with all that is wrong with it."""

import io
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from fractions import Fraction
from typing import Any, BinaryIO, NamedTuple, cast

from datamodules.errors import VideoDecodeError
from datamodules.video import matroska, mp4
from datamodules.video.container import (
    Source,
    check_colours,
    decode_error,
    errors_of,
    name_of,
    open_container,
    reason_of,
    video_stream,
)
from datamodules.video.display_order import DisplayOrder
from datamodules.video.timestamps import Timeline, read_clock, read_listing


class TimedFrame(NamedTuple):
    """A decoded frame, and when it is on display, in ticks of the stream's clock."""

    frame: Any
    start: int
    end: int


def nothing() -> None:
    """Do nothing: the default where a caller may be told that a file is being read."""


class Watched:
    """A source that calls ``alive`` whenever some of it is read."""

    def __init__(self, source: str | Source, alive: Callable[[], None]) -> None:
        self.name = name_of(source)
        self._source, self._alive = source, alive

    def open(self) -> BinaryIO:
        """Open the source and return its file object; see `container.Source`."""
        source, alive = self._source, self._alive
        file: Any = open(source, "rb") if isinstance(source, str) else source.open()  # noqa: SIM115

        class Reader(io.RawIOBase):
            tell, seek, close = file.tell, file.seek, file.close

            def read(self, size: int = -1) -> bytes:
                alive()
                return file.read(size)

        return cast(BinaryIO, Reader())


class InOrder:
    """A file decoded in order from its start: every displayed frame once, or an error.

    It is stricter than `VideoFile`, which forgives damage that no wanted frame shows. Use it once,
    in a ``with`` statement.

    Args:
        source: a local file, or another source that `VideoFile` takes.
        alive: called for every packet.

    Attributes:
        codec: its name in FFmpeg, such as ``h264``.
        time_base: seconds of a tick.
        pixel_aspect: width by height of a stored pixel, for display; 1 if the file does not say.
        num_frames: displayed frames so far.
        keyframe_spacing: greatest number of frames from a keyframe to the next so far.

    Raises:
        VideoDecodeError: something is wrong with the file; the reason says after how many seconds.
    """

    def __init__(self, source: str | Source, alive: Callable[[], None] = nothing) -> None:
        self._name = name_of(source)
        self._alive = alive
        self.num_frames = self.keyframe_spacing = 0
        self._since_keyframe = 0
        self._first: int | None = None  # tick at which the first frame starts
        self._end = 0  # tick at which the last frame so far ends
        with errors_of(self._name):
            self._container, self._file = open_container(source)
            try:
                self._read_header()
            except BaseException:
                self.__exit__()
                raise

    def _read_header(self) -> None:
        self._stream = stream = video_stream(self._name, self._container)
        codec = stream.codec_context
        codec.thread_count, codec.thread_type = 1, "NONE"
        self.codec = codec.codec.canonical_name
        self.pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        self._clock, packets = read_clock(self._name, self._container, stream)
        self._timeline = Timeline(self._clock)
        self._packets = self._timeline.read(packets)
        self._listing = read_listing(self._container, stream)
        self.time_base = self._clock.time_base

    def __enter__(self) -> "InOrder":
        return self

    def __exit__(self, *_: object) -> None:
        self._container.close()
        if self._file is not None:
            self._file.close()

    def __iter__(self) -> Iterator[TimedFrame]:
        """Yield frames in the order of display; each starts later than the one before it."""
        held, start = None, 0  # a frame is held back until the next one tells when it ends
        for frame in self._decoded():
            if self._first is None:
                self._first, self._size = frame.pts, (frame.width, frame.height)
                check_colours(self._name, frame)
            if (frame.width, frame.height) != self._size:
                raise self._error("the frame size changes within the file")
            if held is not None and frame.pts < start:  # its time is over: never on display
                continue
            if held is not None and frame.pts > start:
                self.num_frames += 1
                yield TimedFrame(held, start, frame.pts)
            held, start = frame, frame.pts
            ticks = int(frame.duration or 0) or self._clock.frame_ticks
            self._end = start + ticks
        if held is None:
            raise VideoDecodeError(self._name, "no frame can be decoded")
        self.num_frames += 1
        yield TimedFrame(held, start, self._end)

    def decode_all(self) -> float:
        """Decode all frames; return seconds from the start of the first to the end of the last."""
        for _ in self:
            pass
        return self._seconds(self._end)

    def read_packets(self) -> float:
        """Read all packets and decode none; return about the seconds that `decode_all` would."""
        for packet in self._read():
            self.num_frames += not packet.is_discard
        if self._timeline.start is None or self._timeline.end is None:
            raise VideoDecodeError(self._name, "no frame can be decoded")
        return float((self._timeline.end - self._timeline.start) * self.time_base)

    def _decoded(self) -> Iterator[Any]:
        order = DisplayOrder(self._clock.frame_ticks)
        for packet in self._read():
            if packet.pts is not None and not packet.is_discard:
                order.sent(packet.pts)
            for frame in self._frames_of(packet):
                yield from order.received(frame)
        for frame in self._frames_of(None):  # drains the decoder
            yield from order.received(frame)
        yield from order.drained()

    def _frames_of(self, packet: Any) -> list[Any]:
        frames = self._call(self._stream.codec_context.decode, packet)
        if any(frame.is_corrupt for frame in frames):
            raise self._error("damaged data")
        return frames

    def _read(self) -> Iterator[Any]:
        """Packets that hold data."""
        last_dts = None
        while True:
            self._alive()
            packet = self._call(next, self._packets, None)
            if packet is None:
                break
            if self._timeline.is_damaged(packet):
                raise self._error("incomplete data")
            last_dts = packet.dts
            self._since_keyframe = 1 if packet.is_keyframe else self._since_keyframe + 1
            self.keyframe_spacing = max(self.keyframe_spacing, self._since_keyframe)
            yield packet
        if self._listing is not None and self._listing.is_cut_off(last_dts):
            raise self._error("cut off")
        if missing := self._call(self._truncation):
            raise VideoDecodeError(self._name, missing)

    def _truncation(self) -> str:
        """What the header tells is missing, once all is read: FFmpeg ends there without a word."""
        formats = self._container.format.name.split(",")
        # Of other MP4 files, the listing tells.
        fragmented = "mov" in formats and self._listing is None
        if not fragmented and "matroska" not in formats:
            return ""
        # Without a file object, the source is a path.
        with nullcontext(self._file) if self._file else open(self._name, "rb") as file:
            return (mp4 if fragmented else matroska).truncation(file)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call PyAV; whatever goes wrong there is wrong with the file."""
        try:
            return function(*arguments)
        except Exception as error:
            kind = type(decode_error(self._name, error))
            raise self._error(reason_of(error), kind) from error

    def _seconds(self, tick: int) -> float:
        return float((tick - (self._first or 0)) * self.time_base)

    def _error(
        self, reason: str, kind: type[VideoDecodeError] = VideoDecodeError
    ) -> VideoDecodeError:
        at = f" after {self._seconds(self._end):.2f} s" if self._first is not None else ""
        return kind(self._name, reason + at)
