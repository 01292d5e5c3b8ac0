"""Decoded frames of a video stream, by time, reached from the nearest keyframe.

A frame reached by seeking is, bit for bit, the one that decoding the file from its start gives.
Three rules make it so: decoding enters the stream at a keyframe that starts at or before the wanted
time; what the decoder returns from before that keyframe (leading pictures of an open GOP) is thrown
away; and where the keyframe is not the first to come out, so that it is no entry to rely on, the
file is decoded in order from its start.

What FFmpeg does not tell cannot be told here: damage that still decodes (in HEVC and VP9, most of
it), and the lost end of a file whose header does not say how long it was (all but MP4 and MOV).
"""

import math
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from av.error import FFmpegError

from datamodules.container import VideoDecodeError, fraction, nearest, open_container, video_stream

_SEEK_SECONDS = 10  # further ahead than this, seeking beats reading on
_BACK_SECONDS = (0, 1, 4, 16, 64)  # a seek that lands too late is tried again, this much earlier
_READ_AHEAD_BYTES = 16 << 20  # of packets, at most, in search of a keyframe
_LONG_AGO = -(2**63)  # ticks; before any frame
_LAST_SECOND = 10**7  # later times mean the last frame too, and could overflow FFmpeg's clock


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


class FrameReader:
    """Decoded frames of the video stream of a file, by tick of the stream's clock."""

    def __init__(self, path: str, threads: int):
        self._path = path
        self._threads = threads
        self._in_order = False  # an entry proved bad: no more seeking in this file
        self._first: Any = None
        self._open()

    def _open(self) -> None:
        """Open the file, at its start."""
        self._container = open_container(self._path)
        try:
            self._stream = video_stream(self._path, self._container)
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
        self.time_base = fraction(stream.time_base)
        self.rate = (timed and fraction(stream.average_rate)) or fraction(stream.guessed_rate)
        if not self.time_base or not self.rate:
            raise VideoDecodeError(self._path, "the video stream has no frame rate")
        self._frame_ticks = max(1, nearest(1 / (self.rate * self.time_base)))
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
        """Free the file and its decoder."""
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
        return self.first().pts + nearest(Fraction(second) / self.time_base)

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
