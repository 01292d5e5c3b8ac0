"""Which frames of a stream are sound, as far as FFmpeg tells."""

import math


class Soundness:
    """Which frames a fault may have spoiled: those decoded from it on, up to the next keyframe."""

    def __init__(self) -> None:
        self.fault = ""  # the last one
        self.latest: dict[int, int] = {}  # timestamp of each packet sent: the latest sent up to it
        self._sent: list[int] = []  # in decoding order
        self._keys: list[int] = []  # indices in it, as the following
        self._faults: list[int] = []

    def sent(self, pts: int, is_keyframe: bool) -> None:
        """Note a packet that the decoder is given."""
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
