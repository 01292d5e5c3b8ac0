"""Which frames of a stream are sound, as far as FFmpeg reports damage."""

import math


class Soundness:
    """Which frames a fault may have spoiled: those decoded from it on, up to the next keyframe.

    Attributes:
        fault: the last fault, one line; empty if there was none.
        latest: for the timestamp of each packet sent, the latest timestamp sent up to then.
    """

    def __init__(self) -> None:
        self.fault = ""
        self.latest: dict[int, int] = {}
        self._sent: list[int] = []  # timestamps of packets, in decoding order
        self._keyframes: list[int] = []  # indices of `_sent`
        self._faults: list[int] = []  # indices of `_sent`

    def sent(self, pts: int, is_keyframe: bool) -> None:
        """Note a packet that is sent to the decoder."""
        if is_keyframe:
            self._keyframes.append(len(self._sent))
        self.latest[pts] = max(pts, self.latest[self._sent[-1]]) if self._sent else pts
        self._sent.append(pts)

    def failed(self, reason: str, pts: int | None = None, packets: int = 1) -> None:
        """Note a fault.

        Args:
            reason: what is wrong, one line.
            pts: timestamp of the damaged frame, if it is known.
            packets: else, the fault is in one of this many packets that were sent last.
        """
        if pts in self.latest:
            packets = self._sent[::-1].index(pts) + 1
        self._faults.append(max(0, len(self._sent) - packets))
        self.fault = reason

    def spoiled(self, first: int, last: int) -> bool:
        """Whether a frame that starts from tick ``first`` to tick ``last`` may be spoiled."""
        for i in self._faults:
            refreshed = min((self._sent[k] for k in self._keyframes if k > i), default=math.inf)
            if any(first <= pts <= last and pts < refreshed for pts in self._sent[i:]):
                return True
        return False
