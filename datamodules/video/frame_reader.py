"""Decoded frames of a video stream, by time, reached from the nearest keyframe.

A frame reached by seeking is, bit for bit, the one that decoding the file from its start gives.
Three rules make it so: decoding enters the stream at a keyframe that starts at or before the wanted
time; what the decoder returns from before that keyframe (leading pictures of an open GOP) is thrown
away; and where the keyframe is not the first frame to come out, so that it is not a reliable entry,
the file is decoded in order from its start.

FFmpeg does not report everything, and what it does not report cannot be told here: damage that
still decodes (in HEVC and VP9, most of it), and the lost end of a file whose header does not say
how long it was (all but MP4 and MOV).

`FrameReader` decides where decoding goes on or begins anew; `decoder_run` is what happens from
there on. How the next tick is reached:

    where the reader stands                          what it does
    ----------------------------------------------   ----------------------------------------------
    the tick's frame is current and settled          nothing
    before the tick, at most `_SEEK_SECONDS`         goes on decoding; enters at the last keyframe
                                                     on the way, if there is one
    the same, but the decoder was stopped (drained)  enters at that keyframe; without one, seeks
    past the tick, or further before it              seeks to a keyframe at or before it
    no seek leads to such a keyframe                 opens the file again, at its start
    an entry proved bad, or timestamps are worth     goes on decoding; opens the file again if it
    nothing (`_in_order`): never seeks               stands past the tick
"""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

from av.error import FFmpegError

from datamodules.errors import VideoDecodeError
from datamodules.video.container import Source, clock, nearest, open_container, video_stream
from datamodules.video.decoder_run import LONG_AGO, BadEntry, DecoderRun
from datamodules.video.packet_queue import PacketQueue

_SEEK_SECONDS = 10  # further ahead than this, seeking beats reading on
_BACK_SECONDS = (0, 1, 4, 16, 64)  # a seek that lands too late is tried again, this much earlier
_LAST_SECOND = 10**7  # later times mean the last frame too, and could overflow FFmpeg's clock


class FrameReader:
    """Decoded frames of the video stream of a file, by tick of the stream's clock.

    Args:
        source: the path of a local file, or what `container.Source` describes.
        threads: of the decoder.

    Attributes:
        time_base: seconds of a tick.
        rate: frames per second, on average.

    Raises:
        VideoDecodeError: not a video that can be read.
    """

    def __init__(self, source: str | Source, threads: int):
        self._source = source
        self._path = source if isinstance(source, str) else source.name
        self._threads = threads
        self._in_order = False  # no seeking in this file: an entry proved bad, or may be
        self._reads_on = False  # calls go on where the one before has ended
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
            self._read_from_here()
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        """Learn how the stream tells time, and which short cuts it allows."""
        stream, formats = self._stream, self._container.format.name.split(",")
        self._clock = clock(self._path, self._container, stream)
        self.time_base, self.rate = self._clock.time_base, self._clock.rate
        self._far = float(_SEEK_SECONDS / self.time_base)
        # The header's end is exact where the header lists the frames; elsewhere it may be a guess.
        self._header_end: int | None = None
        if "mov" in formats and stream.frames and stream.duration and self._clock.timed:
            self._header_end = stream.start_time + stream.duration
        self._in_order = self._in_order or self._clock.by_count
        # No H.264 picture depends on one that is marked as no reference: it need not be decoded.
        # That is safe where a packet is a picture, and not one of the two fields of it.
        progressive = getattr(self._codec, "field_order", 0) == 1
        self._may_skip = self._codec.name == "h264" and progressive and not self._clock.by_count
        # Here every packet has its own timestamp, and gives the frame that starts then.
        self._may_stop = not {"mov", "matroska"}.isdisjoint(formats)

    def close(self) -> None:
        """Free the file and its decoder."""
        self._container.close()
        if self._file is not None:
            self._file.close()

    def first(self) -> Any:
        """The first displayed frame. Must be asked for before any other."""
        if self._first is None:
            first = self._frame_at(LONG_AGO)
            self._run.check_sound(LONG_AGO, first.pts - 1)  # a lost frame would have been the first
            self._first = first
        return self._first

    def tick(self, second: float) -> int:
        """The last tick at which a frame may start and be on display at this second."""
        second = min(max(second, 0.0), _LAST_SECOND)
        return self.first().pts + nearest(Fraction(second) / self.time_base)

    def end(self) -> int:
        """The tick at which the last frame ends.

        Where the header does not tell, packets are read, and decoding begins anew after that.
        """
        if self._header_end is not None:
            return self._header_end
        start, ends = self.first().pts, []
        if "matroska" in self._container.format.name:
            self._container.seek(self.tick(_LAST_SECOND), stream=self._stream)
            ends = self._packet_ends(start)
        if not ends:
            self._reopen()
            ends = self._packet_ends(start)
        self._read_from_here()
        return max(ends, default=start + self._clock.frame_ticks)

    def _packet_ends(self, start: int) -> list[int]:
        """Where each remaining frame ends; one without timestamp starts at the end of the last."""
        ends = []
        for packet in self._container.demux(self._stream):
            if packet.size:
                begin = start if packet.pts is None or self._clock.by_count else packet.pts
                start = begin + (packet.duration or self._clock.frame_ticks)
                ends.append(start)
        return ends

    def frames_at(self, ticks: Sequence[int]) -> Iterator[Any]:
        """Yield the frame on display at each tick: the last that starts by then.

        Before the first frame, that is the first. Pictures that no tick asks for are not decoded
        where that is possible.

        Args:
            ticks: in ascending order.
        """
        skipped, current = self._queue.skipped, self._run.current
        if current is not None and skipped is not None and current.pts < skipped:
            # An earlier call ended before its last tick: frames after the current one are missing.
            self._run.current = None
        for i, tick in enumerate(ticks):
            try:
                self._approach(ticks[i:])
                frame = self._frame_at(tick, self._packets_before_a_stop(ticks[i:]))
            except BadEntry:
                self._in_order = True
                self._reopen()
                frame = self._frame_at(tick)
            yield frame

    def _frame_at(self, tick: int, stop_after: int | None = None) -> Any:
        """The frame at a tick that is not before the current frame; an error if it is damaged."""
        frame = self._run.advance(tick, stop_after)
        if self._run.ended:
            self._check_not_cut_off(tick)
        self._run.check_sound(frame.pts, tick)
        return frame

    def _approach(self, ticks: Sequence[int]) -> None:
        """Stand before the first of these ticks, at the last keyframe or past it already."""
        tick, current = ticks[0], self._run.current
        if current is not None and current.pts <= tick:
            if self._in_order or self._run.is_settled(tick):
                return
            if tick - current.pts <= self._far:
                self._queue.read_ahead(ticks, self._far)
                if self._enter_at_keyframe(tick) or not self._run.stopped:
                    return
                # The stop at an earlier call's last tick costs a seek: do without from now on.
                self._reads_on = True
        if self._in_order or not self._seek(ticks):
            self._reopen()

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
            self._read_from_here()
            self._queue.read_ahead(ticks, self._far)
            if self._enter_at_keyframe(tick):
                return True
        return False

    def _reopen(self) -> None:
        self.close()
        self._open()

    def _read_from_here(self) -> None:
        """Read packets from where the container stands."""
        self._queue = PacketQueue(self._container.demux(self._stream))
        self._start_run(entry=None)

    def _enter_at_keyframe(self, tick: int) -> bool:
        """Skip queued packets up to the last keyframe at or before ``tick``; False if none is."""
        keyframe = self._queue.skip_to_keyframe(tick)
        if keyframe is None:
            return False
        self._start_run(entry=keyframe)
        return True

    def _start_run(self, entry: Any) -> None:
        """Decode from the head of the queue: a keyframe, or None at the start of the file."""
        self._run = DecoderRun(
            self._path,
            self._codec,
            self._queue,
            self._clock,
            entry,
            may_skip=self._may_skip,
            threads=self._threads,
        )

    def _packets_before_a_stop(self, ticks: Sequence[int]) -> int | None:
        """Packets to decode for the first tick, if nothing decoded after them is of use later.

        It is of no use if the next tick is reached from another keyframe, or if none comes next.
        None: do not stop.
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

    def _check_not_cut_off(self, tick: int) -> None:
        """All frames have come out: is that the end of the video, or was the file cut off?"""
        sent_end = self._run.sent_end
        missing = (self._header_end or sent_end) - sent_end
        lost = self._queue.read_error or missing > 2 * self._clock.frame_ticks
        if tick >= sent_end and lost:
            seconds = float((sent_end - self.first().pts) * self.time_base)
            raise VideoDecodeError(
                self._path, f"cut off after {seconds:.2f} s{self._queue.read_error}"
            )
