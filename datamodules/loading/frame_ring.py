"""Memory for the frames of a few batches: workers fill it, and nothing is copied afterwards.

Each slot holds the frames of one batch. A slot is lent as a tensor and comes back once nothing
refers to that tensor any more, so a batch that is kept stays what it is: if too many are kept, the
next ones are copies.
"""

import logging
import math
import mmap
import weakref
from collections import deque
from contextlib import suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

log = logging.getLogger(__name__)

# Lightning keeps one batch at a time; a script may still hold the last one when it asks for more.
_KEPT_BY_THE_CONSUMER = 2


class FrameRing:
    """Slots for batches, in memory that is shared with processes forked later.

    Args:
        ahead: number of slots that are never lent, so that workers always have some to fill.
        batch_shape: greatest shape of a batch's frames, ``(B, T, H, W, 3)``.

    Attributes:
        frames: the slots, uint8 ``(slots, B, T, H, W, 3)``.
    """

    def __init__(self, ahead: int, batch_shape: tuple[int, ...]) -> None:
        slots = ahead + _KEPT_BY_THE_CONSUMER
        # Anonymous memory needs no /dev/shm, which is small in containers.
        self._memory = np.frombuffer(mmap.mmap(-1, slots * math.prod(batch_shape)), np.uint8)
        self.frames = self._memory.reshape(slots, *batch_shape)
        # Slots that nobody uses. With a GPU, also an event behind the copies from each.
        self._free: deque[tuple[int, Any]] = deque((slot, None) for slot in range(slots))
        self._lent = 0
        self._pinned = False

    def pin(self) -> None:
        """Lock the memory in place, so that a GPU copies from it by itself.

        It is called after the workers have been forked, as they need no part in it.
        """
        address: int = self._memory.ctypes.data
        cuda: Any = torch.cuda.cudart()
        error = int(cuda.cudaHostRegister(address, self._memory.nbytes, 0))
        self._pinned = error == 0
        if self._pinned:
            weakref.finalize(self._memory, _unpin, address).atexit = False
            return
        with suppress(RuntimeError):
            torch.zeros(1, device="cuda")  # or the next kernel would report the error
        log.warning(
            f"{self._memory.nbytes >> 20} MiB for batches cannot be page-locked (CUDA error "
            f"{error}); copies to the GPU will be slower"
        )

    def free_slot(self, wait: bool = False) -> int | None:
        """Take a slot to fill.

        Args:
            wait: for the GPU to end its copy from a slot, if all others are in use.

        Returns:
            Index of the slot; None if there is none.
        """
        if not self._free:
            return None
        slot, copied = self._free[0]
        if copied is not None and not copied.query():
            if not wait:
                return None
            copied.synchronize()
        self._free.popleft()
        return slot

    def hand_out(self, slot: int, clips: int) -> Tensor:
        """Give a filled slot to the consumer.

        Args:
            slot: its index.
            clips: how many clips it holds.

        Returns:
            uint8 ``(clips, T, H, W, 3)``; a copy, if the consumer still has too many slots.
        """
        frames = self.frames[slot, :clips]
        if self._lent == _KEPT_BY_THE_CONSUMER:
            copy = torch.empty(frames.shape, dtype=torch.uint8, pin_memory=self._pinned)
            self._free.append((slot, None))
            return copy.copy_(torch.from_numpy(frames))
        self._lent += 1
        weakref.finalize(frames, self._take_back, slot).atexit = False
        return torch.from_numpy(frames)

    def _take_back(self, slot: int) -> None:
        """Note that nothing refers to a slot any more, but for copies that the GPU has yet to do.

        Those were put on the current stream before the last reference went.
        """
        copied = None
        if self._pinned:
            copied = torch.cuda.Event()
            copied.record()
        self._lent -= 1
        self._free.append((slot, copied))


def _unpin(address: int) -> None:
    """Unlock memory that nothing refers to any more."""
    torch.cuda.synchronize()  # once a pass; the GPU may still copy from it
    cuda: Any = torch.cuda.cudart()
    cuda.cudaHostUnregister(address)
