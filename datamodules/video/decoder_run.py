"""One run of the decoder, from an entry into the stream on: packets in, frames out.

A frame comes out some packets after its own went in: pictures are stored in another order than they
are displayed in, and decoder threads delay them further. A run is always in one of three phases:

    phase     what holds                                what moves on to the next
    -------   ---------------------------------------   ----------------------------------------
    FEEDING   the decoder holds pictures back, and      `_stop`, once all is in that a tick needs
              what comes out next is not yet known      and later packets are not wanted: STOPPED
                                                        `_feed`, after the last packet: ENDED
    STOPPED   all that went in has come out, which      nothing: a drained decoder takes no more
              tells the frame on display up to the      packets, so a later tick needs a new run
              tick `_stopped_at`, and not beyond
    ENDED     the whole stream has come out, and the    nothing: only an earlier tick needs a new
              last frame stays on display               run

In every phase, frames move one way: out of the decoder through `_order`, which puts their
timestamps right, into `_waiting`, and from there, one by one, to `current`, the frame on display.
"""

from collections import deque
from collections.abc import Collection, Iterable
from enum import Enum, auto
from typing import Any

from av.error import FFmpegError

from datamodules.errors import VideoDecodeError
from datamodules.video.display_order import DisplayOrder
from datamodules.video.packet_queue import PacketQueue
from datamodules.video.soundness import Soundness
from datamodules.video.timestamps import Clock, Timeline

LONG_AGO = -(2**63)  # ticks; before any frame


class BadEntry(Exception):
    """Decoding from this keyframe does not give the frames that decoding in order gives."""


class _Phase(Enum):
    FEEDING = auto()
    STOPPED = auto()
    ENDED = auto()


class DecoderRun:
    """Frames decoded in order from one entry into a stream.

    Args:
        path: the file, for messages.
        codec: PyAV's codec context; what it holds from an earlier run is thrown away.
        queue: the packets, beginning with the entry.
        clock: how the stream tells time.
        timeline: tells which packets are incomplete.
        entry: packet of the keyframe where decoding enters. None: the start of the file.
        starts: ticks at which frames start; empty: unknown.
        in_order: the file is always decoded from its start, so timestamps may be out of order.
        may_skip: leave out hidden pictures that no other depends on.
        threads: number of decoder threads.

    Attributes:
        current: the frame on display; None before the first one.
        sent_end: tick at which the last of the frames ends whose packets went in.
    """

    def __init__(
        self,
        path: str,
        codec: Any,
        queue: PacketQueue,
        clock: Clock,
        timeline: Timeline,
        entry: Any,
        *,
        starts: Collection[int],
        in_order: bool,
        may_skip: bool,
        threads: int,
    ) -> None:
        codec.flush_buffers()
        self._path, self._codec, self._queue, self._clock = path, codec, queue, clock
        self._timeline, self._entry = timeline, entry
        self._starts, self._in_order = starts, in_order
        self._may_skip, self._threads = may_skip, threads
        self._phase = _Phase.FEEDING
        self._stopped_at = LONG_AGO
        self._waiting: deque[Any] = deque()  # decoded, and displayed after the current frame
        self._soundness = Soundness()
        self._order = DisplayOrder(clock.frame_ticks)
        self.current: Any = None
        self.sent_end = 0

    @property
    def stopped(self) -> bool:
        """The decoder was drained before the end of the stream: it cannot go on from here."""
        return self._phase is _Phase.STOPPED

    @property
    def ended(self) -> bool:
        """Every packet of the stream went in, and every frame has come out."""
        return self._phase is _Phase.ENDED

    def is_settled(self, tick: int) -> bool:
        """Whether the current frame is the one at ``tick``, and it is known whether it is sound."""
        if self.current is None:
            return False
        if self.current.pts > tick:  # before the first frame, the first is on display
            return True
        if self._waiting and self._waiting[0].pts <= tick:
            return False
        if self.stopped:
            return tick <= self._stopped_at
        if not self._waiting:
            return False
        # A picture's damage is told when it comes out, maybe after pictures that depend on it. So
        # all pictures that went in before the current one must have come out.
        return self._waiting[-1].pts >= self._soundness.latest.get(self.current.pts, tick)

    def advance(self, tick: int, stop_after: int | None = None) -> Any:
        """Decode until the frame on display at ``tick`` is the current one, or none is left.

        Args:
            tick: at or after the current frame.
            stop_after: drain the decoder after this many packets, as it would need some more before
                that frame comes out by itself. None: never.

        Raises:
            BadEntry: decoding cannot enter here; decode in order from the start of the file.
            VideoDecodeError: no frame comes out.
        """
        while not self.is_settled(tick):
            if self._waiting and (self.current is None or self._waiting[0].pts <= tick):
                self._display(self._waiting.popleft(), tick)
            elif self._phase is not _Phase.FEEDING:
                break
            elif stop_after == 0:
                self._stop(tick)
            else:
                self._feed()
                stop_after = None if stop_after is None else stop_after - 1
        if self.current is None:
            if self._entry is not None and not self._soundness.fault:
                raise BadEntry
            raise VideoDecodeError(self._path, self._soundness.fault or "no frame can be decoded")
        return self.current

    def check_sound(self, first: int, last: int) -> None:
        """Raise a VideoDecodeError if a frame that starts within these ticks may be damaged."""
        if self._soundness.spoiled(first, last):
            raise VideoDecodeError(self._path, self._soundness.fault)

    def _feed(self) -> None:
        """Give the decoder the next packet, or drain it after the last one."""
        packet = self._queue.take()
        if packet is None:
            self._phase = _Phase.ENDED
            self._drain()
            return
        pts = self._order.next_pts if packet.pts is None else packet.pts
        self.sent_end = max(self.sent_end, pts + (packet.duration or self._clock.frame_ticks))
        self._soundness.sent(pts, packet.is_keyframe)
        if self._timeline.is_damaged(packet):
            self._soundness.failed("incomplete data")
        hidden = self._may_skip and self._queue.is_hidden(packet)
        self._codec.skip_frame = "NONREF" if hidden else "DEFAULT"
        shown = not (hidden or packet.is_discard or self._is_leading(packet))
        if shown and packet.pts is not None:
            self._order.sent(packet.pts)
        self._send(packet)

    def _stop(self, tick: int) -> None:
        """Drain the decoder before the end of the stream: all is in that ``tick`` needs."""
        self._phase, self._stopped_at = _Phase.STOPPED, tick
        self._drain()

    def _drain(self) -> None:
        self._send(None)
        self._wait(self._order.drained())

    def _send(self, packet: Any) -> None:
        """Give the decoder a packet, None to drain it, and take the frames that come out."""
        try:
            frames = self._codec.decode(packet)
        except FFmpegError as error:  # with threads, maybe over one of the packets before
            self._soundness.failed(str(error.strerror), packets=self._threads)
            return
        for frame in frames:
            self._receive(frame)

    def _receive(self, frame: Any) -> None:
        """Take a frame from the decoder, unless it is displayed before the entry."""
        if frame.pts is None and self._entry is not None:
            raise BadEntry  # counting must begin at the start of the file
        if self._entry is not None and self._starts and frame.pts not in self._starts:
            raise BadEntry
        if self._is_leading(frame):
            return
        if frame.is_corrupt:
            self._soundness.failed("damaged data", frame.pts)
        self._wait(self._order.received(frame))

    def _is_leading(self, picture: Any) -> bool:
        """Whether a packet or frame is one of the leading pictures of an open GOP.

        These refer to what lies before the entry: they are no good.
        """
        entry = self._entry
        return entry is not None and picture.pts is not None and picture.pts < entry.pts

    def _wait(self, frames: Iterable[Any]) -> None:
        """Let frames wait for their display."""
        self._waiting.extend(frames)
        if self._order.disordered and not self._in_order:
            raise BadEntry

    def _display(self, frame: Any, tick: int) -> None:
        """Make a frame the current one; one whose time runs backwards is never on display."""
        if self.current is None:
            self._check_entry(frame, tick)
            self.current = frame
        elif frame.pts >= self.current.pts:
            self.current = frame

    def _check_entry(self, frame: Any, tick: int) -> None:
        """See that the first frame out is the entry's, unless that one is never displayed."""
        entry = self._entry
        if entry is None or (frame.pts <= tick and (frame.pts == entry.pts or entry.is_discard)):
            return
        if self._soundness.fault:
            raise VideoDecodeError(self._path, self._soundness.fault)
        raise BadEntry
