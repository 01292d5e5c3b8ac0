"""Decoded frames of a video stream, by time, reached from the nearest keyframe.

A frame reached by seeking is, bit for bit, the one that decoding the file from its start gives.
Three rules make it so: decoding enters the stream at a keyframe that starts at or before the wanted
time; what the decoder returns from before that keyframe (leading pictures of an open GOP) is thrown
away; and where the keyframe is not the first to come out, so that it is no entry to rely on, the
file is decoded in order from its start.

What FFmpeg does not tell cannot be told here: damage that still decodes (in HEVC and VP9, most of
it), and the lost end of a file whose header does not say how long it was (all but MP4 and MOV).
"""

from collections import deque
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from av.error import FFmpegError

from datamodules.errors import VideoDecodeError
from datamodules.video.container import Source, clock, nearest, open_container, video_stream
from datamodules.video.packet_queue import PacketQueue
from datamodules.video.soundness import Soundness

_SEEK_SECONDS = 10  # further ahead than this, seeking beats reading on
_BACK_SECONDS = (0, 1, 4, 16, 64)  # a seek that lands too late is tried again, this much earlier
_LONG_AGO = -(2**63)  # ticks; before any frame
_LAST_SECOND = 10**7  # later times mean the last frame too, and could overflow FFmpeg's clock


class _BadEntry(Exception):
    """Decoding from this keyframe does not give what decoding in order gives."""


class FrameReader:
    """Decoded frames of the video stream of a file, by tick of the stream's clock."""

    def __init__(self, source: str | Source, threads: int):
        self._source = source
        self._path = source if isinstance(source, str) else source.name
        self._threads = threads
        self._in_order = False  # an entry proved bad: no more seeking in this file
        self._reads_on = False  # a call went on where the one before it had ended
        self._first: Any = None
        self._open()

    def _open(self) -> None:
        """Open the file, at its start."""
        self._container, self._file = open_container(self._source)
        try:
            self._stream = video_stream(self._path, self._container)
            self._codec = self._stream.codec_context
            self._codec.thread_count = self._threads
            self._codec.thread_type = "AUTO" if self._threads > 1 else "NONE"
            self._read_header()
            self._start_reading()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        stream, formats = self._stream, self._container.format.name.split(",")
        self.time_base, self.rate, self._frame_ticks, timed, self._by_count = clock(
            self._path, self._container, stream
        )
        self._far = float(_SEEK_SECONDS / self.time_base)
        # The header's end is exact where the header lists the frames; elsewhere it may be a guess.
        self._header_end: int | None = None
        if "mov" in formats and stream.frames and stream.duration and timed:
            self._header_end = stream.start_time + stream.duration
        self._in_order = self._in_order or self._by_count
        # No H.264 picture depends on one that is marked as no reference: it need not be decoded.
        # That is safe where a packet is a picture, and not one of the two fields of it.
        progressive = getattr(self._codec, "field_order", 0) == 1
        self._may_skip = self._codec.name == "h264" and progressive and not self._by_count
        # Here every packet has its own timestamp, and gives the frame that starts then.
        self._may_stop = not {"mov", "matroska"}.isdisjoint(formats)

    def close(self) -> None:
        """Free the file and its decoder."""
        self._container.close()
        if self._file is not None:
            self._file.close()

    def _start_reading(self) -> None:
        """Read packets from where the container stands."""
        self._queue = PacketQueue(self._container.demux(self._stream))
        self._start_decoding(None)

    def _start_decoding(self, entry: Any) -> None:
        """Decode from the head of the queue: the keyframe ``entry``, None at the file's start."""
        self._codec.flush_buffers()
        self._entry = entry
        self._current: Any = None
        self._frames: deque[Any] = deque()  # decoded, and displayed after the current one
        self._next_pts = 0  # of a frame without timestamp: one frame after the one before it
        self._sent_end = 0
        self._soundness = Soundness()
        self._drained = False
        self._has_stopped = False  # and the decoder is drained; up to this tick all is known
        self._stopped_at = _LONG_AGO

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

    def frames_at(self, ticks: Sequence[int]) -> Iterator[Any]:
        """The frame on display at each tick, in ascending order: the last that starts by then.

        Before the first frame, that is the first. No other picture that can be skipped is decoded.
        """
        skipped = self._queue.skipped
        if self._current is not None and skipped is not None and self._current.pts < skipped:
            self._current = None  # an earlier call ended before its last tick
        for i, tick in enumerate(ticks):
            try:
                self._approach(ticks[i:])
                frame = self._advance(tick, self._packets_before_a_stop(ticks[i:]))
            except _BadEntry:
                self._in_order = True
                self._reopen()
                frame = self._advance(tick)
            yield frame

    def _approach(self, ticks: Sequence[int]) -> None:
        """Stand before the first of these frames: at the last keyframe, unless that is behind."""
        tick = ticks[0]
        if self._current is not None and self._current.pts <= tick:
            if self._in_order or self._is_settled(tick):
                return
            if tick - self._current.pts <= self._far:
                self._queue.read_ahead(ticks, self._far)
                if self._enter_at_keyframe(tick) or not self._has_stopped:
                    return
                self._reads_on = True
        if self._in_order or not self._seek(ticks):
            self._reopen()

    def _reopen(self) -> None:
        self.close()
        self._open()

    def _seek(self, ticks: Sequence[int]) -> bool:
        """Enter at a keyframe at or before the first tick; False if no seek leads to one."""
        tick = ticks[0]
        for seconds in _BACK_SECONDS:
            goal = tick - int(seconds / self.time_base)
            if goal < self.first().pts:
                return False
            try:
                self._container.seek(goal, stream=self._stream)
            except FFmpegError:  # not in this container
                return False
            self._start_reading()
            self._queue.read_ahead(ticks, self._far)
            if self._enter_at_keyframe(tick):
                return True
        return False

    def _enter_at_keyframe(self, tick: int) -> bool:
        """Skip queued packets up to the last keyframe at or before ``tick``; False if none is."""
        key = self._queue.skip_to_keyframe(tick)
        if key is None:
            return False
        self._start_decoding(key)
        return True

    def _packets_before_a_stop(self, ticks: Sequence[int]) -> int | None:
        """How many to decode for the first tick, if nothing that is decoded then is of use later.

        It is not if the next tick is reached from another keyframe, or if none comes next.
        """
        if not self._may_stop or self._in_order:
            return None
        needed = self._queue.needed_for(ticks[0])
        if needed is None:
            return None
        if len(ticks) == 1:
            stops = not self._reads_on
        else:
            far = ticks[1] - ticks[0] > self._far
            stops = far or self._queue.has_keyframe(needed, ticks[1])
        return needed if stops else None

    def _advance(self, tick: int, stop_after: int | None = None) -> Any:
        """Decode until the frame on display at ``tick`` is the current one.

        After so many packets the decoder is drained. Else it would take some more until that frame
        comes out.
        """
        while not self._is_settled(tick):
            if self._frames and (self._current is None or self._frames[0].pts <= tick):
                frame = self._frames.popleft()
                if self._current is None:
                    self._check_entry(frame, tick)
                if self._current is None or frame.pts >= self._current.pts:
                    self._current = frame  # one whose time runs backwards is never on display
            elif stop_after == 0 and not self._has_stopped:
                self._has_stopped, self._stopped_at = True, tick
                self._send(None)
            elif self._has_stopped or not self._decode():
                self._check_end(tick)
                break
            elif stop_after is not None:
                stop_after -= 1
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
        if self._frames and self._frames[0].pts <= tick:
            return False
        if self._has_stopped:  # all have come out, but not all that a later tick may need went in
            return tick <= self._stopped_at
        if not self._frames:
            return False
        return self._frames[-1].pts >= self._soundness.latest.get(self._current.pts, tick)

    def _decode(self) -> bool:
        """Decode a packet; False after the last."""
        if not self._queue and not self._queue.ended:
            self._queue.read()
        if not self._queue and self._drained:
            return False
        packet = self._queue.pop() if self._queue else None  # None drains the decoder
        self._drained = packet is None
        if packet is not None:
            self._note_sent(packet)
            hidden = self._may_skip and self._queue.is_hidden(packet)
            self._codec.skip_frame = "NONREF" if hidden else "DEFAULT"
        self._send(packet)
        return True

    def _send(self, packet: Any) -> None:
        """Give the decoder a packet, None to drain it, and take what comes out."""
        try:
            frames = self._codec.decode(packet)
        except FFmpegError as error:
            self._soundness.failed(str(error.strerror), packets=self._threads)
            return
        for frame in frames:
            self._receive(frame)

    def _note_sent(self, packet: Any) -> None:
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
        if tick >= self._sent_end and (self._queue.read_error or missing > 2 * self._frame_ticks):
            seconds = float((self._sent_end - self.first().pts) * self.time_base)
            raise VideoDecodeError(
                self._path, f"cut off after {seconds:.2f} s{self._queue.read_error}"
            )
