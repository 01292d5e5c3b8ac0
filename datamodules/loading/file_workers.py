"""Many files worked on by several processes, of which any may hang or die.

A call of FFmpeg cannot be interrupted, so a file that hangs it costs its process. Unlike a pool of
the standard library, this one knows which file that was, and goes on.
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

T = TypeVar("T")
R = TypeVar("R")

_BEAT_SECONDS = 0.5  # between two signs of life of a worker
_LOOK_SECONDS = 1.0  # between two looks at the clock
_ATTEMPTS = 2  # at an item whose worker dies, which may not be its fault (memory)
# Workers come from a server process without threads; forks of this process would inherit locks.
# It imports once what takes long and all of them need.
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
    """Call a function with every item, in several processes; results come as they are ready.

    Args:
        function: is given an item and a function to call now and then as a sign of life. Can be
            pickled. Its exceptions are raised here.
        items: what to work on.
        processes: how many.
        patience: seconds without a sign of life after which a process is ended.
    """
    _CONTEXT.set_forkserver_preload(_IMPORTS)
    todo = deque((item, 0) for item in items)
    lifeline, ours = _CONTEXT.Pipe(duplex=False)  # ends with this process, however that ends
    workers = [_Worker(function, lifeline) for _ in range(min(processes, len(todo)))]
    try:
        while todo or any(worker.busy for worker in workers):
            wait([worker.pipe for worker in workers], _LOOK_SECONDS)
            for i, worker in enumerate(workers):
                answer = worker.look(patience)
                if isinstance(answer, _Died):
                    workers[i] = _Worker(function, lifeline)
                    if answer.idle:
                        continue
                    if not answer.hung and worker.attempts + 1 < _ATTEMPTS:
                        todo.append((worker.item, worker.attempts + 1))
                    else:
                        yield worker.item, Lost(answer.reason)
                elif answer is not None:
                    yield worker.item, answer[0]
                if workers[i].ready and todo:
                    workers[i].send(*todo.popleft())
    finally:
        for worker in workers:
            worker.end()
        ours.close()
        lifeline.close()


class _Died(NamedTuple):
    reason: str
    hung: bool = False
    idle: bool = False  # it had no item


class _Worker:
    """A process and what it is doing."""

    def __init__(self, function: Callable[..., Any], lifeline: Connection) -> None:
        self.pipe, theirs = _CONTEXT.Pipe()
        arguments = (function, theirs, lifeline)
        self.process: Any = _CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.ready = self.busy = False
        self.item: Any = None
        self.attempts = 0
        self._last_sign = time.monotonic()

    def send(self, item: Any, attempts: int) -> None:
        """Begin with an item."""
        self.item, self.attempts = item, attempts
        self.ready, self.busy = False, True
        self._last_sign = time.monotonic()
        with suppress(BrokenPipeError):  # the next look tells
            self.pipe.send(item)

    def look(self, patience: float) -> tuple[Any] | _Died | None:
        """What has become of the item; None if nothing yet."""
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

    def _died(self) -> "_Died":
        self.process.join()
        reason = cause_of_death(self.process.exitcode)
        if not self.busy and not self.ready:
            raise RuntimeError(f"a process ends before it gets any work: {reason}")
        return _Died(reason, idle=not self.busy)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()


def _serve(function: Callable[..., Any], pipe: Connection, lifeline: Connection) -> None:
    """What a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends us
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
    """End this process, be it in a decoder that hangs, when the parent is gone."""
    with suppress(EOFError, OSError):
        lifeline.recv()
    _exit(1)


def cause_of_death(exit_code: int | None) -> str:
    """Why a process that decodes has ended, in words."""
    if exit_code is None or exit_code >= 0:
        return f"the decoder ended its process with exit code {exit_code}"
    name = signal.Signals(-exit_code).name
    hint = "; out of memory?" if name == "SIGKILL" else ""
    return f"the decoder's process was ended by {name}{hint}"
