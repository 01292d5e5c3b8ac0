"""Processes that work through many files once, for `prepare` and `check`: any may hang or die.

A call of FFmpeg cannot be interrupted, so a file that hangs it costs its process. Unlike a pool of
the standard library, this one knows which file that was, gives `Lost` as its result, and goes on.

There is a second supervisor, `item_workers`, because training asks for other things:

                   file_workers                           item_workers
    work           each file once, up to many minutes     an epoch's items, thousands a minute
    order          as results are ready                   the epoch's order, whatever is slow
    a file is      lost after so long without a sign of   lost after so long in all; the caller
                   life: long files take long             then decides what takes its place
    start          from a server without threads, which   a fork, as workers must share the memory
                   pickles the function                   of the data set and of the frames
    results        small, through a pipe                  frames, in shared memory
"""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from os import _exit
from typing import Any, NamedTuple, TypeVar

from datamodules.errors import WorkerFailure

T = TypeVar("T")
R = TypeVar("R")

_BEAT_SECONDS = 0.5  # between two signs of life of a worker
_LOOK_SECONDS = 1.0  # between two looks at the clock
# Workers come from a server process without threads: forks of this process would inherit locks.
# The server imports once what all of them need and takes long.
_CONTEXT = get_context("forkserver")
_IMPORTS = ["datamodules.video.transcoding", "pyarrow"]


class Lost(NamedTuple):
    """In place of a result: the process that worked on the item hung or died."""

    reason: str


def work(
    function: Callable[[T, Callable[[], None]], R],
    items: Iterable[T],
    *,
    processes: int,
    patience: float,
) -> Generator[tuple[T, R | Lost]]:
    """Call a function with every item, in several processes.

    An item whose process dies may not be at fault: all of them together may take too much memory.
    So it is tried once more at the end, while no other is worked on.

    Args:
        function: called with an item and with a function to call now and then as a sign of life. It
            must be picklable. Its exceptions are raised here.
        items: what to work on.
        processes: number of processes.
        patience: seconds without a sign of life after which a process is killed.

    Raises:
        WorkerFailure: a process ends before it gets any work.

    Yields:
        An item and its result as soon as that is ready, or `Lost` if its process hung or died.
    """
    _CONTEXT.set_forkserver_preload(_IMPORTS)
    todo, again = deque(items), deque[T]()
    lifeline, ours = _CONTEXT.Pipe(duplex=False)  # closes when this process ends, however it does
    workers = [_Worker(function, lifeline) for _ in range(min(processes, len(todo)))]
    try:
        while todo or again or any(worker.busy for worker in workers):
            wait([worker.pipe for worker in workers], _LOOK_SECONDS)
            for i, worker in enumerate(workers):
                answer = worker.look(patience)
                if isinstance(answer, _Died):
                    workers[i] = _Worker(function, lifeline)
                    if answer.idle:
                        continue
                    if not answer.hung and not worker.alone:
                        again.append(worker.item)
                    else:
                        yield worker.item, Lost(answer.reason)
                elif answer is not None:
                    yield worker.item, answer[0]
                if workers[i].ready and todo:
                    workers[i].send(todo.popleft())
                elif workers[i].ready and again and not any(other.busy for other in workers):
                    workers[i].send(again.popleft(), alone=True)
    finally:
        for worker in workers:
            worker.end()
        ours.close()
        lifeline.close()


class _Died(NamedTuple):
    """In place of an answer: the worker has ended."""

    reason: str
    hung: bool = False  # it was killed for that
    idle: bool = False  # it had no item


class _Worker:
    """A process and the item that it works on.

    Attributes:
        ready: it waits for an item; False until its imports are done, too.
        busy: it works on an item.
        item: the last item that it was given.
        alone: this is the second attempt at it, while no other item is worked on.
    """

    def __init__(self, function: Callable[..., Any], lifeline: Connection) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        arguments = (function, theirs, lifeline)
        self.process: Any = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.ready = self.busy = False
        self.item: Any = None
        self.alone = False
        self._last_sign = time.monotonic()

    def send(self, item: Any, alone: bool = False) -> None:
        """Give it an item to work on."""
        self.item, self.alone = item, alone
        self.ready, self.busy = False, True
        self._last_sign = time.monotonic()
        with suppress(BrokenPipeError):  # it has died: the next look tells
            self.pipe.send(item)

    def look(self, patience: float) -> tuple[Any] | _Died | None:
        """The result of the item in a tuple, or how the worker died; None if there is no news."""
        while self.pipe.poll():
            self._last_sign = time.monotonic()
            try:
                kind, value = self.pipe.recv()
            except (EOFError, OSError):
                return self._died()
            if kind == "error":
                raise value
            if kind == "ready":
                self.ready = True
            elif kind == "result":
                self.ready, self.busy = True, False
                return (value,)
        if self.busy and time.monotonic() - self._last_sign > patience:
            self.end()
            return _Died(f"the decoder hangs: nothing came for {patience:g} s", hung=True)
        return None

    def _died(self) -> _Died:
        self.process.join()
        reason = cause_of_death(self.process.exitcode)
        if not self.busy and not self.ready:
            raise WorkerFailure(
                f"a process ends before it gets any work: {reason}; try fewer --processes"
            )
        return _Died(reason, idle=not self.busy)

    def end(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(function: Callable[..., Any], pipe: Connection, lifeline: Connection) -> None:
    """What a worker does: work on the items that come through the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends this one
    threading.Thread(target=_end_with, args=(lifeline,), daemon=True).start()
    last_beat = 0.0

    def alive() -> None:
        nonlocal last_beat
        now = time.monotonic()
        if now - last_beat > _BEAT_SECONDS:
            last_beat = now
            pipe.send(("alive", None))

    pipe.send(("ready", None))
    with suppress(EOFError, BrokenPipeError):
        while True:
            item = pipe.recv()
            try:
                answer = ("result", function(item, alive))
            except Exception as error:
                answer = ("error", error)
            pipe.send(answer)


def _end_with(lifeline: Connection) -> None:
    """End this process when its parent is gone, even while its decoder hangs."""
    with suppress(EOFError, OSError):
        lifeline.recv()
    _exit(1)


def cause_of_death(exit_code: int | None) -> str:
    """Why a decoding process has ended, in words; ``exit_code`` is that of `multiprocessing`."""
    if exit_code is None or exit_code >= 0:
        return f"the decoder ended its process with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = "; out of memory?" if name == "SIGKILL" else ""
    return f"the decoder's process was ended by {name}{hint}"
