"""Packets that were read and not yet decoded, and what they tell about the frames to come."""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

from av.error import FFmpegError

_READ_AHEAD_BYTES = 16 << 20  # of packets, at most


class PacketQueue:
    """Packets of one stream, in decoding order.

    Args:
        packets: those that hold data, from where the container stands.
        lag: ticks by which a packet's decoding time may be past its time of display.

    Attributes:
        lag: the same, by all packets so far.
        last_dts: decoding time of the last packet read; None: it had none.
        read_error: why reading failed, after a colon; empty if it did not.
        skipped: the latest start of a frame that `is_hidden` was true of; None: there was none.
    """

    def __init__(self, packets: Iterator[Any], lag: int = 0):
        self.lag = lag
        self.last_dts: int | None = None
        self.read_error = ""
        self.skipped: int | None = None
        self._packets = packets
        self._ended = False  # nothing is left to be read
        self._queue: deque[Any] = deque()
        self._bytes = 0
        self._asked: Sequence[int] = ()  # ticks, when the next two were found
        self._visible: set[int] = set()  # starts of the queued frames that are asked for
        self._visible_end: int | None = None  # the last of these; any later frame may be next

    def take(self) -> Any:
        """Remove and return the next packet, read if none is queued; None after the last."""
        while not self._queue and not self._ended:
            self._read()
        return self._pop() if self._queue else None

    def read_ahead(self, ticks: Sequence[int], far: float) -> None:
        """Queue packets until their decoding time is past the ticks: no later one is shown by then.

        That is, by more than the lag.

        Args:
            ticks: those asked for, in ascending order.
            far: a tick that is this far from the one before it is left for later.
        """
        near = next((i for i in range(1, len(ticks)) if ticks[i] - ticks[i - 1] > far), len(ticks))
        known = self._asked[-len(ticks) :] == ticks  # the rest of what was asked for before
        while not self._ended and self._bytes < _READ_AHEAD_BYTES:
            dts = self._queue[-1].dts if self._queue else None
            if dts is not None and dts - self.lag > ticks[near - 1]:
                break
            self._read()
            known = False
        if known:
            return
        self._asked = ticks
        starts = sorted(p.pts for p in self._queue if p.pts is not None)
        reached = {bisect_right(starts, tick) for tick in ticks} - {0}
        self._visible = {starts[i - 1] for i in reached}
        self._visible_end = max(self._visible, default=None)

    def skip_to_keyframe(self, tick: int) -> Any:
        """Drop packets up to the last keyframe at or before ``tick`` and return it.

        It stays in the queue. None: there is no such keyframe, and nothing is dropped.
        """
        keyframes = [
            p for p in self._queue if p.is_keyframe and p.pts is not None and p.pts <= tick
        ]
        if not keyframes:
            return None
        while self._queue[0] is not keyframes[-1]:
            self._pop()
        self.skipped = None
        return keyframes[-1]

    def is_hidden(self, packet: Any) -> bool:
        """Whether a packet's frame is not asked for. After the last tick, any frame may be next."""
        pts, end = packet.pts, self._visible_end
        if pts is None or end is None or pts >= end or pts in self._visible or packet.is_keyframe:
            return False
        self.skipped = pts if self.skipped is None else max(self.skipped, pts)
        return True

    def enough_for(self, ticks: Sequence[int], far: float, reads_on: bool) -> int | None:
        """How many packets to decode for the first tick, if nothing after them is of use later.

        It is of no use if the next tick is reached from another keyframe, or if none comes next.

        Args:
            ticks: those asked for, in ascending order.
            far: a tick that is this far from the one before it is reached by seeking.
            reads_on: the last tick may be followed by others.

        Returns:
            None: later packets are of use, or it is not known how many are needed.
        """
        needed = self.needed_for(ticks[0])
        if needed is None:
            return None
        if len(ticks) == 1:
            return None if reads_on else needed
        seeks = ticks[1] - ticks[0] > far or self.has_keyframe(needed, ticks[1])
        return needed if seeks else None

    def needed_for(self, tick: int) -> int | None:
        """How many packets to decode for the frame at ``tick``; None if that is not known."""
        needed = 0
        for i, packet in enumerate(self._queue):
            if packet.pts is None or packet.dts is None:
                return None
            if packet.dts - self.lag > tick:
                return needed
            needed = i + 1 if packet.pts <= tick else needed
        return None

    def has_keyframe(self, behind: int, tick: int) -> bool:
        """Whether a keyframe at or before ``tick`` comes after the next ``behind`` packets."""
        later = islice(self._queue, behind, None)
        return any(p.is_keyframe and p.pts is not None and p.pts <= tick for p in later)

    def _read(self) -> None:
        """Queue one packet."""
        try:
            packet = next(self._packets, None)
        except FFmpegError as error:
            packet, self.read_error = None, f": {error.strerror}"
        if packet is None:
            self._ended = True
            return
        self.last_dts = packet.dts
        if packet.pts is not None and packet.dts is not None:
            self.lag = max(self.lag, packet.dts - packet.pts)
        self._queue.append(packet)
        self._bytes += packet.size

    def _pop(self) -> Any:
        packet = self._queue.popleft()
        self._bytes -= packet.size
        return packet
