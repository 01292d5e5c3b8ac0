"""Text for people at a terminal: progress of long work, hints for misspelt names."""

import difflib
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta


@contextmanager
def progress_line(name: str, unit: str = "files") -> Iterator[Callable[[int, int], None]]:
    """Show progress on stderr, as a bar on a terminal and else as lines for a log.

    Args:
        name: of the work.
        unit: of its amount.

    Yields:
        A function of the amounts done and in total, to be called as the work proceeds.
    """
    if not sys.stderr.isatty():
        yield _Lines(name, unit)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{{task.fields[rate]:.1f}} {unit}/s"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None, rate=0.0)

        def update(done: int, total: int) -> None:
            rate = bar.tasks[task].speed or 0.0
            bar.update(task, completed=done, total=total, rate=rate)

        yield update


class _Lines:
    """Prints a line after two seconds, then one every ten seconds, and one at the end."""

    first, seconds = 2.0, 10.0

    def __init__(self, name: str, unit: str) -> None:
        self._name, self._unit = name, unit
        self._start = time.monotonic()
        self._next = self._start + self.first

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now < self._next and done < total:
            return
        self._next = now + self.seconds
        seconds = now - self._start
        rate = max(done, 1) / seconds
        if done < total:
            end = f"{timedelta(seconds=round((total - done) / rate))} left"
        else:
            end = f"took {timedelta(seconds=round(seconds))}"
        line = f"{self._name}: {done} of {total} {self._unit}, {rate:.1f} a second, {end}"
        print(line, file=sys.stderr, flush=True)


def did_you_mean(word: str, names: Iterable[str]) -> str:
    """``; did you mean ...?`` with up to three similar names; "" if no name is similar."""
    near = difflib.get_close_matches(word, list(names), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""
