"""How a stream tells time, and what is done about timestamps that are wrong."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from fractions import Fraction
from itertools import chain, pairwise
from typing import Any, NamedTuple

from datamodules.errors import VideoDecodeError
from datamodules.video.display_order import LARGEST_DELAY

_FIRST_PACKETS = 64  # looked at for pictures that are displayed in another order than decoded
_BACK_SECONDS = Fraction(1, 10)  # decoding times never go back; so far may be an inaccuracy
_JUMP_SECONDS = 10  # further ahead than this, a stream that is cut or joined goes on: as in FFmpeg
_MANY_PACKETS = 2000
_LATE_STREAMS = 16  # streams that may begin within a file


class Clock(NamedTuple):
    """How a stream tells time.

    Attributes:
        time_base: seconds of a tick.
        rate: frames per second, on average.
        frame_ticks: ticks of one frame at that rate.
        slack: ticks by which a frame may start after the time it is asked for, as times are rounded
            to ticks. Small against a frame.
        by_order: pictures are reordered, and timestamps are not: see `display_order`. Only decoding
            from the start tells which frame is which.
        decoding_times: by_order, and the container has times of decoding only.
        by_count: few packets have times, as in MPEG-PS, and those of others are guesses. Frames are
            counted from the start.
        jumps: the container is made for broadcasting. Time may jump where it was cut or joined.
        lag: ticks by which a packet's decoding time may be past its time of display.
        by_edits: the header puts parts of the media together, so decoding times go back where one
            part follows another. Only decoding from the start tells which frame is which.
    """

    time_base: Fraction
    rate: Fraction
    frame_ticks: int
    slack: Fraction
    by_order: bool
    decoding_times: bool
    by_count: bool
    jumps: bool
    lag: int
    by_edits: bool


def read_clock(path: str, container: Any, stream: Any) -> tuple[Clock, Iterator[Any]]:
    """Read a stream's clock.

    Args:
        path: the file, for messages.
        container: PyAV's, at its start.
        stream: its video stream.

    Returns:
        The clock, and the packets of the stream from its start.

    Raises:
        VideoDecodeError: it has no frame rate.
    """
    time_base = fraction(stream.time_base)
    timed = stream.start_time is not None  # else, the average rate is made up
    rate = (timed and fraction(stream.average_rate)) or fraction(stream.guessed_rate)
    if not time_base or not rate:
        raise VideoDecodeError(path, "the video stream has no frame rate")
    frame = 1 / (rate * time_base)  # ticks
    frame_ticks = max(1, nearest(frame))
    # Where ticks and frames coincide, as in AVI, no time was rounded.
    exact = frame.denominator == 1 or frame < 2
    slack = min(Fraction(1, 2), frame / 20) if exact else Fraction(1, 2)
    formats = set(container.format.name.split(","))
    packets = packets_of(container, stream)
    first, by_order = [], False
    if stream.codec_context.has_b_frames:
        first, by_order = _first_packets(packets)
    # A stream that decodes ahead begins to decode before it displays. If it does not say so, its
    # decoding times are late, by an unknown number of frames.
    late = first and None not in (first[0].pts, first[0].dts) and first[0].dts >= first[0].pts
    lag = LARGEST_DELAY * frame_ticks if late else 0
    clock = Clock(
        time_base,
        rate,
        frame_ticks,
        slack,
        by_order=by_order,
        decoding_times=by_order and bool(formats & {"avi", "asf", "mxf"}),
        by_count="mpeg" in formats,
        jumps="mpegts" in formats,
        lag=lag,
        by_edits="mov" in formats and _has_seams(stream),
    )
    return clock, chain(first, packets)


def _has_seams(stream: Any) -> bool:
    """Whether an MP4 or MOV shows several parts of its media one after the other (an edit list).

    Each part begins with the pictures that its first frame depends on, so decoding times go back.
    """
    entries = stream.index_entries
    # Every picture once: looking at so many would take longer than all else that opens the file.
    if len(entries) == stream.frames > _MANY_PACKETS:
        return False
    return any(later.timestamp < earlier.timestamp for earlier, later in pairwise(entries))


def _first_packets(packets: Iterator[Any]) -> tuple[list[Any], bool]:
    """The first packets of a codec that reorders pictures, and whether it seems to reorder none.

    That is so where FFmpeg had no times of display: in AVI, MXF and ASF, where it makes them up
    from those of decoding, and does so right only where it knows the kind of each picture.
    """
    first: list[Any] = []
    for packet in packets:
        first.append(packet)
        if packet.pts is None or (len(first) > 1 and packet.pts < first[-2].pts):
            return first, False
        if len(first) == _FIRST_PACKETS:
            break
    return first, not all(packet.is_keyframe for packet in first)


def packets_of(container: Any, stream: Any) -> Iterator[Any]:
    """Packets of a stream that hold data, from where its container stands."""
    for _ in range(_LATE_STREAMS):
        try:
            for packet in container.demux(stream):
                if packet.size:  # PyAV ends with an empty one; AVI has them to repeat a frame
                    yield packet
            return
        except IndexError:  # PyAV trips over a stream that begins late; from now on it knows it
            continue


class Timeline:
    """Gives packets, read in order from the start of a file, timestamps that can be relied on.

    Args:
        clock: the stream's.

    Attributes:
        jumped: time went back, or jumped ahead in a container where that is no pause.
        counts: some packet had no timestamp.
        start: tick at which the first frame starts, by the packets so far; None: there was none.
        end: tick at which the last one ends; from a packet without timestamp on, it is counted.
    """

    def __init__(self, clock: Clock) -> None:
        self.jumped = self.counts = False
        self.start: int | None = None
        self.end: int | None = None
        self._clock = clock
        self._offset = 0
        self._joints: list[int] = []  # ticks at which time jumped
        self._next: int | None = None  # decoding time that is expected next
        self._back = nearest(_BACK_SECONDS / clock.time_base)
        self._ahead = _JUMP_SECONDS / clock.time_base if clock.jumps else math.inf

    def read(self, packets: Iterable[Any]) -> Iterator[Any]:
        """Yield packets whose timestamps are right. Where time may jump, some are read ahead."""
        ahead: deque[Any] = deque()
        for packet in packets:
            self._mend(packet)
            ahead.append(packet)
            if not self._clock.jumps or len(ahead) > LARGEST_DELAY:
                yield ahead.popleft()
        yield from ahead

    def is_damaged(self, packet: Any) -> bool:
        """Whether a packet that was read is incomplete.

        In a joined stream, FFmpeg takes the last packets before the joint for incomplete, as the
        numbers of the container's own packets start again.
        """
        if not packet.is_corrupt or packet.dts is None:
            return packet.is_corrupt
        near = LARGEST_DELAY * self._clock.frame_ticks
        return not any(0 <= joint - packet.dts <= near for joint in self._joints)

    def _mend(self, packet: Any) -> None:
        """Change a packet's timestamps where they are wrong."""
        pts, dts = packet.pts, packet.dts
        if self._clock.decoding_times and dts is not None:
            pts = dts
        if self._clock.by_count:
            pts = None
        duration = packet.duration or self._clock.frame_ticks
        if dts is not None and not self._clock.by_edits:
            expected = dts + self._offset if self._next is None else self._next
            if not expected - self._back <= dts + self._offset <= expected + self._ahead:
                self.jumped = True
                self._offset = expected - dts
                self._joints.append(expected)
            self._next = dts + self._offset + duration
        times = [None if time is None else time + self._offset for time in (pts, dts)]
        if times != [packet.pts, packet.dts]:
            packet.pts, packet.dts = times
        if not packet.is_discard:
            self._extend(packet.pts, duration)

    def _extend(self, pts: int | None, duration: int) -> None:
        """Note when a packet's frame is displayed."""
        self.counts |= pts is None
        if pts is None or self.counts:
            pts = self.end or 0
        self.start = pts if self.start is None else min(self.start, pts)
        self.end = pts + duration if self.end is None else max(self.end, pts + duration)


class Listing(NamedTuple):
    """What the header of an MP4 or MOV says of its packets.

    Attributes:
        end: tick at which the last frame ends. Where pictures are reordered and the rate varies, it
            may be wrong: the header adds up the times from each decoding to the next.
        last_dts: decoding time of the last packet; None: unknown.
        tail_dts: decoding time of a packet so late that no earlier one is displayed last.
    """

    end: int
    last_dts: int | None
    tail_dts: int | None

    def end_with(self, last_packets: Iterable[Any], clock: Clock) -> int:
        """The tick at which the last frame ends, by the packets from `tail_dts` on."""
        last = max(last_packets, key=lambda packet: packet.pts, default=None)
        if last is None:
            return self.end
        # Its duration is the time to the next decoding, which may be long after its display.
        end = last.pts + min(last.duration or math.inf, clock.frame_ticks)
        # Less than that is a rounding, as in edit lists.
        return end if end - self.end > clock.frame_ticks / 2 or self.end <= last.pts else self.end

    def is_cut_off(self, last_dts: int | None) -> bool:
        """Whether packets are missing after the last one that could be read."""
        return self.last_dts is not None and (last_dts is None or last_dts < self.last_dts)


def read_listing(container: Any, stream: Any) -> Listing | None:
    """Read what the header says; None where it does not list the packets."""
    if "mov" not in container.format.name.split(",") or stream.start_time is None:
        return None
    if not (stream.frames and stream.duration):
        return None
    entries = stream.index_entries
    count = len(entries)
    last, tail = (
        entries[max(0, count - back)].timestamp if count else None
        for back in (1, LARGEST_DELAY + 1)
    )
    return Listing(stream.start_time + stream.duration, last, tail)


def fraction(number: Any) -> Fraction:
    """A rational of PyAV as a Fraction: None (then 0), a Fraction or, from 19 on, an AVRational."""
    return Fraction(number.numerator, number.denominator) if number else Fraction(0)


def nearest(number: Fraction) -> int:
    """The nearest integer, halves up."""
    return math.floor(number + Fraction(1, 2))
