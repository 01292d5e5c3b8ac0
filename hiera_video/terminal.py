"""Text for people at a terminal: progress of long work, hints for misspelt names."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta

from datamodules.wording import counted, did_you_mean

__all__ = ["did_you_mean", "progress_line"]


@contextmanager
def progress_line(name: str, unit: str | None = "files") -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr, as a bar on a terminal and else as lines for a log.

    Args:
        name: of the work.
        unit: of its amount; None: nothing can be counted, and only that the work goes on is shown.
            Its rate is shown, too, unless it is ``seconds``, those of the clock.

    Yields:
        A function of the amounts done and in total, to be called as the work proceeds; without a
        unit, there is no need to.
    """
    if not sys.stderr.isatty():
        with _under_way(name) if unit is None else nullcontext(_Lines(name, unit)) as show:
            yield show
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]:.1f}} {unit}/s"),
        TimeRemainingColumn(),
    )
    if unit == "seconds":
        columns = (*columns[:3], TextColumn(unit))
    if unit is None:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None, rate=0.0)

        def update(done: int, total: int) -> None:
            rate = bar.tasks[task].speed or 0.0
            bar.update(task, completed=done, total=total, rate=rate)

        yield update
        if unit is None:
            update(1, 1)
        elif bar.tasks[task].total is None:  # it was too little to be counted
            bar.remove_task(task)


class _Lines:
    """Prints a line after two seconds, then one every ten seconds, and one at the end.

    The time until the first call does not count for the rate, as processes start then; nor does
    what was done before it.
    """

    first, seconds = 2.0, 10.0

    def __init__(self, name: str, unit: str) -> None:
        self._name, self._unit = name, unit
        self._start = time.monotonic()
        self._next = self._start + self.first
        self._begun: tuple[float, int] | None = None  # when the first call came, and what was done

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        begun, done_before = self._begun = self._begun or (now, done)
        if now < self._next and done < total:
            return
        self._next = now + self.seconds
        parts = [f"{self._name}: {done} of {counted(total, self._unit)}"]
        rate = (done - done_before) / (now - begun) if now > begun else 0.0
        if rate and self._unit != "seconds":
            parts.append(f"{rate:.1f} a second")
        if done >= total:
            parts.append(f"took {timedelta(seconds=round(now - self._start))}")
        elif rate:
            parts.append(f"{timedelta(seconds=round((total - done) / rate))} left")
        _say(", ".join(parts))


@contextmanager
def _under_way(name: str) -> Iterator[Callable[[int, int], None]]:
    """Print a line after two seconds, and one at the end of work that takes longer."""
    start = time.monotonic()
    timer = threading.Timer(_Lines.first, _say, [f"{name}: under way"])
    timer.daemon = True
    timer.start()
    try:
        yield lambda done, total: None
    finally:
        timer.cancel()
        timer.join()
    if (seconds := time.monotonic() - start) >= _Lines.first:
        _say(f"{name}: took {timedelta(seconds=round(seconds))}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
