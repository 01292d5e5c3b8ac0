"""Processes that make a loader's batches ahead of time, and are replaced when one hangs or dies.

A call of FFmpeg cannot be interrupted, so files must be read by a process that can be killed. Each
of n workers makes every n-th item: they share no queue, so a killed worker leaves nothing locked.
Workers write frames to their place in a batch, in memory that is mapped before the fork.

`prepare` and `check` work through files with another supervisor; the table at the top of
`file_workers` says what sets the two apart.
"""

import atexit
import math
import mmap
import os
import pickle
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.clips.items import Item
from datamodules.loading.file_workers import cause_of_death
from datamodules.loading.frame_ring import FrameRing

_BATCHES_AHEAD = 2  # made before they are asked for, at least
_ITEMS_AHEAD = 2  # for each worker, at least
_FORK = get_context("fork")  # workers share the manifest's memory
_IDLE = math.inf  # in place of the time since when a worker works: it waits for a free slot
_LOOK_SECONDS = 1.0  # between two looks at the clock, at most, and at whether the parent is gone
_NO_VIDEO = -1  # in place of a video's index


class Workers:
    """Batches of one pass, in order, made by several processes.

    Args:
        make: makes item k. Its second argument is a function that it must call with the index of
            each video before opening it. It runs in the workers, which are forks of this process.
        batch_sizes: items in each batch; only the last may have fewer than the first.
        item_shape: greatest shape of an item's ``video``, uint8 ``(clips, T, H, W, 3)``.
        num_workers: number of processes.
        timeout: seconds that a worker may take for one video.
        on_fault: called when a worker was lost to a video, with the video's index, the reason, and
            whether it hung. Then `make` is called again, in another worker.
        pin_memory: put frames in page-locked memory, from which the GPU copies them by itself.
    """

    def __init__(
        self,
        make: Callable[[int, Callable[[int], None]], Item],
        batch_sizes: list[int],
        item_shape: tuple[int, ...],
        *,
        num_workers: int,
        timeout: float,
        on_fault: Callable[[int, str, bool], None],
        pin_memory: bool = False,
    ) -> None:
        self._make, self._timeout, self._on_fault = make, timeout, on_fault
        self._batch_sizes, self._length = batch_sizes, sum(batch_sizes)
        num_workers = min(num_workers, self._length)
        self._batch_size, self._item_clips = batch_sizes[0], item_shape[0]
        # Every worker always has an item to make, and the consumer a batch to take.
        ahead = max(_BATCHES_AHEAD, math.ceil(_ITEMS_AHEAD * num_workers / self._batch_size))
        batch_shape = (self._batch_size * item_shape[0], *item_shape[1:])
        self._ring, self._pin_memory = FrameRing(ahead, batch_shape), pin_memory
        self._slots: list[int] = []  # the slot of each batch that has one
        # For each worker: since when it works (seconds), and on which video, if one is open.
        self._reading = np.frombuffer(mmap.mmap(-1, num_workers * 16)).reshape(num_workers, 2)
        self._processes: list[Any] = [None] * num_workers
        self._pipes: list[Any] = [None] * num_workers
        # For each worker: the item it owed when it last died without an open video.
        self._idle_deaths = [-1] * num_workers

    def __iter__(self) -> Generator[tuple[list[Item], Tensor]]:
        """Yield batches in order.

        Each is a list of items, which have ``clips``, their number of clips, in place of ``video``;
        and the clips of all of them, uint8 ``(clips, T, H, W, 3)``.
        """
        count = len(self._processes)
        # Should this be left open: at exit, Python would send SIGTERM, which workers ignore.
        atexit.register(self._stop)
        try:
            for worker in range(count):
                self._start(worker, worker)
            if self._pin_memory:
                self._ring.pin()
            for batch, size in enumerate(self._batch_sizes):
                self._assign_slots(batch)
                first = batch * self._batch_size
                items = [self._receive(k % count, k) for k in range(first, first + size)]
                yield items, self._hand_out(self._slots[batch], items)
        finally:
            atexit.unregister(self._stop)
            self._stop()

    def _assign_slots(self, batch: int) -> None:
        """Give free slots to the next batches, so that ``batch`` has one, and tell the workers."""
        while len(self._slots) < len(self._batch_sizes):
            slot = self._ring.free_slot(wait=len(self._slots) <= batch)
            if slot is None:
                break
            self._slots.append(slot)
            for worker in range(len(self._pipes)):
                self._tell(worker, len(self._slots) - 1)

    def _hand_out(self, slot: int, items: list[Item]) -> Tensor:
        """The clips of all items; those behind an item with fewer clips than its place move up."""
        frames, clips = self._ring.frames[slot], 0
        for place, item in enumerate(items):
            start, count = place * self._item_clips, item["clips"]
            if start != clips:
                frames[clips : clips + count] = frames[start : start + count]
            clips += count
        return self._ring.hand_out(slot, clips)

    def _start(self, worker: int, k: int) -> None:
        """Fork a worker that begins with item ``k``, and tell it the slots from its batch on."""
        self._reading[worker] = time.monotonic(), _NO_VIDEO
        self._pipes[worker], theirs = _FORK.Pipe()
        arguments = (theirs, worker, k, os.getpid())
        process = _FORK.Process(target=self._work, args=arguments, daemon=True)
        with warnings.catch_warnings():  # Python 3.12 warns of any fork beside threads
            warnings.simplefilter("ignore", DeprecationWarning)
            process.start()
        theirs.close()
        self._processes[worker] = process
        for batch in range(k // self._batch_size, len(self._slots)):
            self._tell(worker, batch)

    def _receive(self, worker: int, k: int) -> Item:
        """Wait for item ``k`` from its worker, or from those that replace it."""
        while True:
            pipe, process = self._pipes[worker], self._processes[worker]
            ready = wait([pipe, process.sentinel], min(_LOOK_SECONDS, self._timeout))
            if pipe in ready:
                try:
                    item = pipe.recv()
                except (EOFError, OSError):  # it died, maybe in the middle of an item
                    process.join()
                    self._replace(worker, k, cause_of_death(process.exitcode))
                    continue
                if isinstance(item, Exception):
                    raise item
                return {key: _as_tensor(value) for key, value in item.items()}
            if process.sentinel in ready:
                if not pipe.poll():  # else its last message is still to be read
                    process.join()
                    self._replace(worker, k, cause_of_death(process.exitcode))
            elif time.monotonic() - self._reading[worker, 0] > self._timeout:
                process.kill()
                process.join()
                reason = f"took longer than {self._timeout:g} s to read"
                self._replace(worker, k, reason, hung=True)

    def _replace(self, worker: int, k: int, reason: str, hung: bool = False) -> None:
        """Put another worker in the place of one that died and owes item ``k``."""
        index = int(self._reading[worker, 1])
        if index >= 0:
            self._on_fault(index, reason, hung)
        elif self._idle_deaths[worker] == k:
            raise RuntimeError(f"a loader's worker is lost before it reads a video ({reason})")
        else:
            self._idle_deaths[worker] = k
        self._pipes[worker].close()
        self._start(worker, k)

    def _tell(self, worker: int, batch: int) -> None:
        """Tell a worker the slot of a batch."""
        # It may have ended, in order or not; the next look at it tells.
        with suppress(BrokenPipeError, ConnectionResetError):
            self._pipes[worker].send((batch, self._slots[batch]))

    def _stop(self) -> None:
        """Kill all workers."""
        for process in filter(None, self._processes):
            process.kill()
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            if process is not None:
                process.join()
                pipe.close()

    def _work(self, pipe: Connection, worker: int, first: int, parent: int) -> None:
        """What a worker does: make every n-th item, beginning with item ``first``."""
        # A scheduler, Ctrl-C or a terminal that closes signals all processes at once; the parent
        # ends the workers itself.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        torch.set_num_threads(1)  # the parent's thread pool did not survive the fork
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        last, slot = -1, -1  # the last batch whose slot is known, and the slot

        def reading(index: int) -> None:
            self._reading[worker] = time.monotonic(), index

        for k in range(first, self._length, len(self._processes)):
            batch, place = divmod(k, self._batch_size)
            self._reading[worker] = _IDLE, _NO_VIDEO
            while last < batch:
                last, slot = pipe.recv()
            self._reading[worker] = time.monotonic(), _NO_VIDEO
            try:
                item = self._make(k, reading)
                video, start = item.pop("video"), place * self._item_clips
                check_frames(video, self._ring.frames.shape[2:], self._item_clips)
                self._ring.frames[slot, start : start + len(video)] = video
                item = {key: _as_array(value) for key, value in item.items()}
                pipe.send(item | {"clips": len(video)})
            except Exception as error:
                pipe.send(_portable(error))
                return
        self._reading[worker] = _IDLE, _NO_VIDEO


def _end_with(parent: int) -> None:
    """End this process when its parent is gone, even while its decoder hangs."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)


def check_frames(video: Tensor, shape: tuple[int, ...], most: int) -> None:
    """See that the clips of an item are what its data set says.

    Args:
        video: the clips.
        shape: ``(T, H, W, 3)`` of each.
        most: of them.

    Raises:
        ValueError: they are something else, which would be broadcast or cast silently.
    """
    if video.dtype != torch.uint8 or tuple(video.shape[1:]) != tuple(shape) or len(video) > most:
        raise ValueError(
            f"an item's video must be uint8 with at most {most} clips of {tuple(shape)}, as its "
            f"data set's item_shape says, not {video.dtype} {tuple(video.shape)}"
        )


def _portable(error: Exception) -> Exception:
    """The error with its traceback as a note, in a form that can be pickled."""
    text = "".join(traceback.format_exception(error))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"In a loader's worker:\n{text}")
    return error


def _as_array(value: Any) -> Any:
    return value.numpy() if isinstance(value, torch.Tensor) else value


def _as_tensor(value: Any) -> Any:
    return torch.from_numpy(value) if isinstance(value, np.ndarray) else value
