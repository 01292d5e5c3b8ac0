"""Frames out of one video file, by time: exact, fast, or a clear error.

A frame reached by seeking is, bit for bit, the one that decoding the file from its start gives.
Three rules make it so: decoding enters the stream at a keyframe that starts at or before the wanted
time; what the decoder returns from before that keyframe (leading pictures of an open GOP) is thrown
away; and where the keyframe is not the first to come out, so that it is no entry to rely on, the
file is decoded in order from its start.

What FFmpeg does not tell cannot be told here: damage that still decodes (in HEVC and VP9, most of
it), and the lost end of a file whose header does not say how long it was (all but MP4 and MOV).
"""

import errno
import math
import operator
import os
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter

Box = tuple[int, int, int, int]

# Containers that hold their media themselves. Playlists and scripts (HLS, DASH, concat, ...) make
# FFmpeg open other files, which a file from the internet must not be able to do.
_CONTAINERS = (
    "mov,mp4,matroska,webm,avi,flv,asf,mpegts,mpeg,mpegvideo,ogg,gif,ivf,nut,mxf,rm,dv,"
    "h264,hevc,m4v,obu,yuv4mpegpipe"
)
_SEEK_SECONDS = 10  # further ahead than this, seeking beats reading on
_BACK_SECONDS = (0, 1, 4, 16, 64)  # a seek that lands too late is tried again, this much earlier
_READ_AHEAD_BYTES = 16 << 20  # of packets, at most, in search of a keyframe
_LONG_AGO = -(2**63)  # ticks; before any frame
_LAST_SECOND = 10**7  # later times mean the last frame too, and could overflow FFmpeg's clock

# When it shrinks, swscale widens the filter: the antialiasing. Without the second flag, older
# releases halve the colour resolution of RGB; they lack the flags' names, too.
_BILINEAR = 0x2 | 0x4000  # SWS_BILINEAR | SWS_FULL_CHR_H_INP
_PYAV = int(av.__version__.split(".")[0])
# From 17 on, converting starts a thread per core unless told otherwise.
_ONE_THREAD: dict[str, Any] = {"threads": 1} if _PYAV >= 17 else {}
# Up to 18, a title in another encoding than UTF-8 is an error unless told otherwise.
_ANY_TITLE: dict[str, Any] = {"metadata_errors": "replace"} if _PYAV < 19 else {}


class VideoDecodeError(RuntimeError):
    """The file, or the part of it that was asked for, cannot be decoded.

    Attributes:
        path: the file.
        reason: one line, with FFmpeg's message where there is one.
    """

    # Data loaders rebuild a worker's exception from its text alone; hence the default.
    def __init__(self, path: str, reason: str = ""):
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}" if self.reason else self.path


class VideoFile:
    """A video file, open for reading. Use it in a ``with`` statement, in one process and thread.

    Args:
        path: a local file.
        threads: decoder threads; one is best in data-loader workers.

    Raises:
        VideoDecodeError: missing, empty, no video, or a container that refers to other files.
    """

    def __init__(self, path: str | os.PathLike[str], threads: int = 1):
        self._reader: _FrameReader | None = None
        self.path = os.fsdecode(path)
        self._to_rgb = VideoReformatter()
        self._to_size = VideoReformatter()
        self._duration: float | None = None
        with _errors_of(self.path):
            self._reader = _FrameReader(self.path, threads)

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
            with _errors_of(self.path):
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
        with _errors_of(self.path):
            ticks = [reader.tick(t) for t in times]
            for i in sorted(range(len(times)), key=ticks.__getitem__):
                frame = reader.frame_at(ticks[i])
                if frame is not shown:
                    shown, pixels = frame, self._pixels(frame, box, height, width)
                clip[i] = pixels
        return clip

    def _opened(self) -> "_FrameReader":
        if self._reader is None:
            raise ValueError(f"{self.path}: the file is closed")
        return self._reader

    def _displayed_size(self) -> tuple[int, int]:
        reader = self._opened()
        with _errors_of(self.path):
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


class _BadEntry(Exception):
    """Decoding from this keyframe does not give what decoding in order gives."""


class _Soundness:
    """Which frames a fault may have spoiled: those decoded from it on, up to the next keyframe."""

    def __init__(self) -> None:
        self.fault = ""
        self.latest: dict[int, int] = {}  # timestamp of each packet sent: the latest sent up to it
        self._sent: list[int] = []  # in decoding order
        self._keys: list[int] = []  # indices in it, as the following
        self._faults: list[int] = []

    def sent(self, pts: int, is_keyframe: bool) -> None:
        if is_keyframe:
            self._keys.append(len(self._sent))
        self.latest[pts] = max(pts, self.latest[self._sent[-1]]) if self._sent else pts
        self._sent.append(pts)

    def failed(self, reason: str, pts: int | None = None, packets: int = 1) -> None:
        """Note a fault in the packet of ``pts``, or else in one of the last few packets."""
        if pts in self.latest:
            packets = self._sent[::-1].index(pts) + 1
        self._faults.append(max(0, len(self._sent) - packets))
        self.fault = reason

    def spoiled(self, first: int, last: int) -> bool:
        """Whether a frame that starts from ``first`` to ``last`` may be spoiled."""
        for i in self._faults:
            refreshed = min((self._sent[k] for k in self._keys if k > i), default=math.inf)
            if any(first <= pts <= last and pts < refreshed for pts in self._sent[i:]):
                return True
        return False


class _FrameReader:
    """Decoded frames of the video stream of a file, by tick of the stream's clock."""

    def __init__(self, path: str, threads: int):
        self._path = path
        self._threads = threads
        self._in_order = False  # an entry proved bad: no more seeking in this file
        self._first: Any = None
        self._open()

    def _open(self) -> None:
        """Open the file, at its start."""
        self._container = _open_container(self._path)
        try:
            self._stream = _video_stream(self._path, self._container)
            self._codec = self._stream.codec_context
            self._codec.thread_count = self._threads
            self._codec.thread_type = "AUTO" if self._threads > 1 else "NONE"
            self._read_header()
            self._start_reading()
        except BaseException:
            self._container.close()
            raise

    def _read_header(self) -> None:
        stream, formats = self._stream, self._container.format.name.split(",")
        timed = stream.start_time is not None  # a raw stream is not; its average rate is made up
        self.time_base = _fraction(stream.time_base)
        self.rate = (timed and _fraction(stream.average_rate)) or _fraction(stream.guessed_rate)
        if not self.time_base or not self.rate:
            raise VideoDecodeError(self._path, "the video stream has no frame rate")
        self._frame_ticks = max(1, _nearest(1 / (self.rate * self.time_base)))
        # The header's end is exact where the header lists the frames; elsewhere it may be a guess.
        self._header_end: int | None = None
        if "mov" in formats and stream.frames and stream.duration and timed:
            self._header_end = stream.start_time + stream.duration
        # AVI has no timestamps, and what FFmpeg makes up is wrong if these codecs reorder pictures.
        reordered = self._codec.name in ("h264", "hevc") and bool(self._codec.has_b_frames)
        self._by_count = "avi" in formats and reordered
        self._in_order = self._in_order or self._by_count
        # No H.264 picture depends on one that is marked as no reference: it need not be decoded.
        # That is safe where a packet is a picture, and not one of the two fields of it.
        progressive = getattr(self._codec, "field_order", 0) == 1
        self._may_skip = self._codec.name == "h264" and progressive and not self._by_count

    def close(self) -> None:
        self._container.close()

    def _start_reading(self) -> None:
        """Read packets from where the container stands."""
        self._packets: Iterator[Any] = self._container.demux(self._stream)
        self._read_error = ""
        self._ended = False
        self._queue: deque[Any] = deque()  # packets read, not yet decoded
        self._queued_bytes = 0
        self._start_decoding(None)

    def _start_decoding(self, entry: Any) -> None:
        """Decode from the head of the queue: the keyframe ``entry``, None at the file's start."""
        self._codec.flush_buffers()
        self._entry = entry
        self._current: Any = None
        self._frames: deque[Any] = deque()  # decoded, and displayed after the current one
        self._next_pts = 0  # of a frame without timestamp: one frame after the one before it
        self._sent_end = 0
        self._soundness = _Soundness()
        self._drained = False

    def first(self) -> Any:
        """The first displayed frame. To be asked for before any other."""
        if self._first is None:
            first = self._advance(_LONG_AGO)
            if self._soundness.spoiled(_LONG_AGO, first.pts - 1):  # it is not the first, then
                raise VideoDecodeError(self._path, self._soundness.fault)
            self._first = first
        return self._first

    def tick(self, second: float) -> int:
        """The last tick at which a frame may start and be on display at this second."""
        second = min(max(second, 0.0), _LAST_SECOND)
        return self.first().pts + _nearest(Fraction(second) / self.time_base)

    def end(self) -> int:
        """The tick at which the last frame ends. Without a header, the position is lost."""
        if self._header_end is not None:
            return self._header_end
        start, ends = self.first().pts, []
        if "matroska" in self._container.format.name:
            self._container.seek(self.tick(_LAST_SECOND), stream=self._stream)
            ends = self._packet_ends(start)
        if not ends:
            self._reopen()
            ends = self._packet_ends(start)
        self._start_reading()
        return max(ends, default=start + self._frame_ticks)

    def _packet_ends(self, start: int) -> list[int]:
        """Where each frame to come ends; one without timestamp starts at the end of the last."""
        ends = []
        for packet in self._container.demux(self._stream):
            if packet.size:
                begin = start if packet.pts is None or self._by_count else packet.pts
                start = begin + (packet.duration or self._frame_ticks)
                ends.append(start)
        return ends

    def frame_at(self, tick: int) -> Any:
        """The last frame that starts at or before ``tick``; the first frame if none does."""
        try:
            self._approach(tick)
            return self._advance(tick)
        except _BadEntry:
            self._in_order = True
            self._reopen()
            return self._advance(tick)

    def _approach(self, tick: int) -> None:
        """Stand before the wanted frame: at the last keyframe before it, unless that is behind."""
        if self._current is not None and self._current.pts <= tick:
            if self._in_order or self._is_settled(tick):
                return
            if tick - self._current.pts <= _SEEK_SECONDS / self.time_base:
                self._read_ahead(tick)
                self._enter_at_keyframe(tick)
                return
        if self._in_order or not self._seek(tick):
            self._reopen()

    def _reopen(self) -> None:
        self._container.close()
        self._open()

    def _seek(self, tick: int) -> bool:
        """Enter the stream at a keyframe at or before ``tick``; False if no seek leads to one."""
        for seconds in _BACK_SECONDS:
            goal = tick - int(seconds / self.time_base)
            if goal < self.first().pts:
                return False
            try:
                self._container.seek(goal, stream=self._stream)
            except FFmpegError:  # not in this container
                return False
            self._start_reading()
            self._read_ahead(tick)
            if self._enter_at_keyframe(tick):
                return True
        return False

    def _read_ahead(self, tick: int) -> None:
        """Queue packets until they are decoded after ``tick``: no later one is displayed by it."""
        while not self._ended and self._queued_bytes < _READ_AHEAD_BYTES:
            dts = self._queue[-1].dts if self._queue else None
            if dts is not None and dts > tick:
                return
            self._read()

    def _read(self) -> None:
        """Queue one packet."""
        try:
            packet = next(self._packets, None)
        except FFmpegError as error:
            packet, self._read_error = None, f": {error.strerror}"
        if packet is None:
            self._ended = True
        elif packet.size:  # PyAV ends with an empty one; AVI has them to repeat a frame
            self._queue.append(packet)
            self._queued_bytes += packet.size

    def _enter_at_keyframe(self, tick: int) -> bool:
        """Skip queued packets up to the last keyframe at or before ``tick``; False if none is."""
        keys = [p for p in self._queue if p.is_keyframe and p.pts is not None and p.pts <= tick]
        if not keys:
            return False
        while self._queue[0] is not keys[-1]:
            self._queued_bytes -= self._queue.popleft().size
        self._start_decoding(keys[-1])
        return True

    def _advance(self, tick: int) -> Any:
        """Decode until the frame on display at ``tick`` is the current one."""
        queued = [p.pts for p in self._queue if self._may_skip and p.pts is not None]
        visible = max((pts for pts in queued if pts <= tick), default=_LONG_AGO)
        while not self._is_settled(tick):
            if self._frames and (self._current is None or self._frames[0].pts <= tick):
                frame = self._frames.popleft()
                if self._current is None:
                    self._check_entry(frame, tick)
                if self._current is None or frame.pts >= self._current.pts:
                    self._current = frame  # one whose time runs backwards is never on display
            elif not self._decode(visible):
                self._check_end(tick)
                break
        if self._soundness.spoiled(self._current.pts, tick):
            raise VideoDecodeError(self._path, self._soundness.fault)
        return self._current

    def _is_settled(self, tick: int) -> bool:
        """Whether the current frame is the one at ``tick``, and it is known whether it is sound.

        A picture's damage is told when it is displayed, maybe after pictures that depend on it. So
        all that were decoded before the current one must have come out.
        """
        if self._current is None or self._current.pts > tick:
            return self._current is not None
        if not self._frames or self._frames[0].pts <= tick:
            return False
        return self._frames[-1].pts >= self._soundness.latest.get(self._current.pts, tick)

    def _decode(self, visible: int) -> bool:
        """Decode a packet; False after the last. The frame at ``visible`` hides those before it."""
        if not self._queue and not self._ended:
            self._read()
        if not self._queue and self._drained:
            return False
        packet = self._queue.popleft() if self._queue else None  # None drains the decoder
        self._drained = packet is None
        if packet is not None:
            self._note_sent(packet)
            hidden = self._may_skip and packet.pts is not None and packet.pts < visible
            self._codec.skip_frame = "NONREF" if hidden and not packet.is_keyframe else "DEFAULT"
        try:
            frames = self._codec.decode(packet)
        except FFmpegError as error:
            self._soundness.failed(str(error.strerror), packets=self._threads)
            return True
        for frame in frames:
            self._receive(frame)
        return True

    def _note_sent(self, packet: Any) -> None:
        self._queued_bytes -= packet.size
        pts = self._next_pts if packet.pts is None or self._by_count else packet.pts
        self._sent_end = max(self._sent_end, pts + (packet.duration or self._frame_ticks))
        self._soundness.sent(pts, packet.is_keyframe)
        if packet.is_corrupt:
            self._soundness.failed("incomplete data")

    def _receive(self, frame: Any) -> None:
        """Take a frame from the decoder, unless it is one from before the entry."""
        if frame.pts is None or self._by_count:
            if self._entry is not None:
                raise _BadEntry
            frame.pts = self._next_pts
        self._next_pts = frame.pts + self._frame_ticks
        if self._entry is None or frame.pts >= self._entry.pts:
            self._frames.append(frame)
            if frame.is_corrupt:
                self._soundness.failed("damaged data", frame.pts)

    def _check_entry(self, frame: Any, tick: int) -> None:
        """The first frame must be that of the entry, unless that one is never displayed."""
        entry = self._entry
        if entry is None or (frame.pts <= tick and (frame.pts == entry.pts or entry.is_discard)):
            return
        if self._soundness.fault:
            raise VideoDecodeError(self._path, self._soundness.fault)
        raise _BadEntry

    def _check_end(self, tick: int) -> None:
        """No frame is left: is that the end of the video, or was the file cut off?"""
        if self._current is None:
            if self._entry is not None and not self._soundness.fault:
                raise _BadEntry
            raise VideoDecodeError(self._path, self._soundness.fault or "no frame can be decoded")
        missing = (self._header_end or self._sent_end) - self._sent_end
        if tick >= self._sent_end and (self._read_error or missing > 2 * self._frame_ticks):
            seconds = float((self._sent_end - self.first().pts) * self.time_base)
            raise VideoDecodeError(self._path, f"cut off after {seconds:.2f} s{self._read_error}")


@contextmanager
def _errors_of(path: str) -> Iterator[None]:
    """Turn FFmpeg's errors into a VideoDecodeError. Its log is silent: PyAV's default."""
    try:
        yield
    except FFmpegError as error:
        raise VideoDecodeError(path, str(error.strerror)) from error


def _open_container(path: str) -> Any:
    try:
        status = os.stat(path)
    except OSError as error:
        raise VideoDecodeError(path, str(error.strerror)) from error
    if not stat.S_ISREG(status.st_mode):
        raise VideoDecodeError(path, "not a file")
    if not status.st_size:
        raise VideoDecodeError(path, "the file is empty")
    allowed = {"protocol_whitelist": "file", "format_whitelist": _CONTAINERS}
    try:
        # With a scheme in front, nothing in the name is taken for one ("http:", "concat:").
        return av.open(f"file:{path}", container_options=allowed, **_ANY_TITLE)
    except FFmpegError as error:
        if error.errno == errno.EINVAL:
            raise VideoDecodeError(path, "not one of the video containers read here") from error
        raise


def _video_stream(path: str, container: Any) -> Any:
    stream = container.streams.best("video")
    disposition = getattr(stream, "disposition", 0)  # PyAV 15, 16: an enum; 14: unknown
    cover = getattr(disposition, "value", disposition) & 0x400  # AV_DISPOSITION_ATTACHED_PIC
    if stream is None or cover:
        raise VideoDecodeError(path, "it has no video stream")
    if stream.codec_context is None:
        raise VideoDecodeError(path, "this FFmpeg has no decoder for its video stream")
    return stream


def _fraction(number: Any) -> Fraction:
    """Normalise PyAV's rationals: None, a Fraction or (from 19) an AVRational; 0 if unset."""
    return Fraction(number.numerator, number.denominator) if number else Fraction(0)


def _nearest(number: Fraction) -> int:
    return math.floor(number + Fraction(1, 2))


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
        height, width = _nearest(height * scale), _nearest(width * scale)
    if min(height, width) < 1:
        raise ValueError(f"size {size} is not positive")
    return height, width
