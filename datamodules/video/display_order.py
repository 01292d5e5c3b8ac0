"""Timestamps of decoded frames, put right where they are out of order."""

from collections import Counter, deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Any

# No codec decodes a picture more than this many pictures ahead of its display (H.264 and HEVC).
LARGEST_DELAY = 16


class DisplayOrder:
    """Gives the frames of one run of a decoder their timestamps, in ascending order.

    A decoder returns frames in the order of display, whatever their timestamps say. Where a file
    has only decoding times (packed B-frames, H.264 in AVI or MXF), FFmpeg gives each frame the
    timestamp of its packet: the right timestamps, on the wrong frames. So the frame that comes out
    first gets the smallest one, the second frame the next, and so on. A frame waits only while a
    smaller timestamp than its own has gone in and not come out; in ordinary files none waits.

    From the first frame without a timestamp on, time is counted.

    Args:
        frame_ticks: duration of a frame.

    Attributes:
        next_pts: when a frame without timestamp would start.
        disordered: a frame had another timestamp than the one it got.
    """

    def __init__(self, frame_ticks: int) -> None:
        self.next_pts = 0
        self.disordered = False
        self._frame_ticks = frame_ticks
        self._counts = False
        self._times: list[int] = []  # a heap: timestamps that no frame has got yet
        self._inside = Counter[int]()  # those of packets that are still in the decoder
        self._frames: deque[Any] = deque()  # that came out, and wait for their timestamps

    def sent(self, pts: int) -> None:
        """Note the timestamp of a packet that gives a frame."""
        heappush(self._times, pts)
        self._inside[pts] += 1

    def received(self, frame: Any) -> Iterator[Any]:
        """Take the decoder's next frame; yield those whose timestamps are now known."""
        self._counts |= frame.pts is None
        if self._counts:
            yield from self.drained()
            frame.pts = self.next_pts
            self.next_pts += self._frame_ticks
            yield frame
            return
        if self._inside[frame.pts]:
            self._inside[frame.pts] -= 1
        else:
            heappush(self._times, frame.pts)
        self._frames.append(frame)
        yield from self._release(LARGEST_DELAY)

    def drained(self) -> Iterator[Any]:
        """Yield the frames that still wait, as no more come out."""
        return self._release(0)

    def _release(self, most_waiting: int) -> Iterator[Any]:
        while self._frames:
            if not self._inside[self._times[0]]:
                yield self._next()
            elif len(self._frames) > most_waiting:  # the packet gave no frame
                self._inside[heappop(self._times)] -= 1
            else:
                return

    def _next(self) -> Any:
        frame, pts = self._frames.popleft(), heappop(self._times)
        self.disordered |= frame.pts != pts
        frame.pts = pts
        self.next_pts = pts + self._frame_ticks
        return frame
