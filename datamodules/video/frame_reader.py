"""Decoded frames of a video stream, by time, reached from the nearest keyframe.

A frame reached by seeking is, bit for bit, the one that decoding the file from its start gives.
Three rules make it so: decoding enters the stream at a keyframe that starts at or before the wanted
time; what the decoder returns from before that keyframe (leading pictures of an open GOP) is thrown
away; and where the keyframe is not the first frame to come out, so that it is not a reliable entry,
the file is decoded in order from its start.

FFmpeg does not report everything, and what it does not report cannot be told here: damage that
still decodes (in HEVC and VP9, most of it), and the lost end of a file whose header does not say
how long it was (all but MP4 and MOV that are not fragmented).

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
    `_in_order`: times or parts are out of order,    goes on decoding; opens the file again if it
    time jumps, or an entry proved bad               stands past the tick; never seeks
"""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any, BinaryIO

from av.error import FFmpegError

from datamodules.errors import VideoDecodeError
from datamodules.video.container import Source, check_colours, name_of, open_container, video_stream
from datamodules.video.decoder_run import LONG_AGO, BadEntry, DecoderRun
from datamodules.video.packet_queue import PacketQueue
from datamodules.video.timestamps import Timeline, packets_of, read_clock, read_listing

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
        self._path = name_of(source)
        self._threads = threads
        self._in_order = False  # no seeking in this file
        self._reads_on = False  # calls go on where the one before has ended
        self._first: Any = None
        self._end: int | None = None  # tick at which the last frame ends
        self._unread = ""  # why not all packets could be read
        self._starts: set[int] = set()  # of all frames, where seeking may lead to other times
        self._queue = PacketQueue(iter(()))
        self._file: BinaryIO | None = None
        self._open()

    def _open(self) -> None:
        """Open the file, at its start. A source is opened once: that may cost a request."""
        self._container, self._file = open_container(self._source, self._file)
        try:
            self._stream = video_stream(self._path, self._container)
            self._codec = self._stream.codec_context
            self._codec.thread_count = self._threads
            self._codec.thread_type = "AUTO" if self._threads > 1 else "NONE"
            self._clock, packets = read_clock(self._path, self._container, self._stream)
            self._read_header()
            self._timeline = Timeline(self._clock)
            self._read(self._timeline.read(packets))
        except BaseException:
            self.close()
            raise

    def _read_header(self) -> None:
        """Learn how the stream tells time, and which short cuts it allows."""
        self.time_base, self.rate = self._clock.time_base, self._clock.rate
        self._far = float(_SEEK_SECONDS / self.time_base)
        self._listing = read_listing(self._container, self._stream)
        self._in_order |= self._clock.by_order or self._clock.by_count or self._clock.by_edits
        # No H.264 picture depends on one that is marked as no reference: it need not be decoded.
        # That is safe where a packet is a picture, and not one of the two fields of it.
        progressive = getattr(self._codec, "field_order", 0) == 1
        self._may_skip = self._codec.name == "h264" and progressive and not self._clock.by_order
        # Here every packet has its own timestamp, and gives the frame that starts then.
        formats = self._container.format.name.split(",")
        self._may_stop = not {"mov", "matroska"}.isdisjoint(formats)

    def close(self) -> None:
        """Free the file and its decoder."""
        self._container.close()
        if self._file is not None:
            self._file.close()

    def first(self) -> Any:
        """The first displayed frame. Must be asked for before any other."""
        if self._first is None:
            if self._clock.jumps:
                self._scan()
                self._reopen()
            first = self._robust_frame_at(LONG_AGO)
            self._run.check_sound(LONG_AGO, first.pts - 1)  # a lost frame would have been the first
            check_colours(self._path, first)
            self._first = first
        return self._first

    def tick(self, second: float) -> int:
        """The last tick at which a frame may start and be on display at this second."""
        second = min(max(second, 0.0), _LAST_SECOND)
        ticks = Fraction(second) / self.time_base + self._clock.slack
        return self.first().pts + math.floor(ticks)

    def end(self) -> int:
        """The tick at which the last frame ends.

        Where the header does not tell, packets are read, and decoding begins anew after that.
        """
        self.first()
        # FFmpeg may leave gaps between edits, which the header's duration does not have.
        listing = None if self._clock.by_edits else self._listing
        if self._end is None and listing is not None and not self._codec.has_b_frames:
            self._end = listing.end
        if self._end is None and (listing or "matroska" in self._container.format.name):
            self._end = self._end_of_last_packets()
        if self._end is None:
            self._reopen()
            self._scan()
        if self._unread or self._end is None:
            raise VideoDecodeError(self._path, f"the end cannot be read{self._unread}")
        return self._end

    def _end_of_last_packets(self) -> int | None:
        """Where the last frame ends, by the last packets; None: unknown."""
        listing, packets = self._listing, []
        tail = listing.tail_dts if listing else None
        goal = self.tick(_LAST_SECOND) if tail is None else tail
        try:
            self._container.seek(goal, stream=self._stream, any_frame=tail is not None)
            read = packets_of(self._container, self._stream)
            packets = [p for p in read if p.pts is not None and not p.is_discard]
        except FFmpegError:  # no seeking in this file, or it was cut off
            pass
        self._read_from_here()
        if listing is not None:
            return listing.end_with(packets, self._clock)
        ends = (p.pts + (p.duration or self._clock.frame_ticks) for p in packets)
        return max(ends, default=None)

    def _scan(self) -> None:
        """Read all packets from the start: where the last frame ends, and whether time jumps."""
        while (packet := self._queue.take()) is not None:
            if self._clock.jumps:
                self._starts.add(packet.pts)
        self._end, self._unread = self._timeline.end, self._queue.read_error
        self._in_order |= self._timeline.jumped or self._timeline.counts

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
            self._approach(ticks[i:])
            yield self._robust_frame_at(tick, self._packets_before_a_stop(ticks[i:]))

    def _robust_frame_at(self, tick: int, stop_after: int | None = None) -> Any:
        """The frame at a tick; if need be, from decoding the file from its start."""
        try:
            frame = self._frame_at(tick, stop_after)
            if self._in_order or not self._timeline.jumped:
                return frame
        except BadEntry:
            pass
        self._in_order = True
        self._reopen()
        return self._frame_at(tick)

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
        self._container.close()
        self._open()

    def _read_from_here(self) -> None:
        """Read packets from where the container stands."""
        self._read(packets_of(self._container, self._stream))

    def _read(self, packets: Iterator[Any]) -> None:
        self._queue = PacketQueue(packets, max(self._clock.lag, self._queue.lag))
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
            self._timeline,
            entry,
            starts=self._starts,
            in_order=self._in_order,
            may_skip=self._may_skip,
            threads=self._threads,
        )

    def _packets_before_a_stop(self, ticks: Sequence[int]) -> int | None:
        """After how many packets the decoder may be drained for the first tick; None: do not."""
        if not self._may_stop or self._in_order:
            return None
        return self._queue.enough_for(ticks, self._far, self._reads_on)

    def _check_not_cut_off(self, tick: int) -> None:
        """All frames have come out: is that the end of the video, or was the file cut off?"""
        sent_end, lost = self._run.sent_end, bool(self._queue.read_error)
        if self._listing is not None:
            missing = self._listing.end - sent_end > 2 * self._clock.frame_ticks
            is_cut_off = self._listing.is_cut_off(self._queue.last_dts)
            lost |= missing if self._listing.last_dts is None else is_cut_off
        if tick >= sent_end and lost:
            seconds = float((sent_end - self.first().pts) * self.time_base)
            raise VideoDecodeError(
                self._path, f"cut off after {seconds:.2f} s{self._queue.read_error}"
            )
