"""The logged numbers of a run: one CSV file, and curves. Neither ends a run on a full disk."""

import csv
import itertools
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.loggers.logger import Logger

from datamodules.files import atomic_file

log = logging.getLogger(__name__)


class Curves(TensorBoardLogger):
    """TensorBoard's files; while they cannot be written, the run goes on without them.

    Points that are logged then are lost. Once there is room, the curves go on in a file of their
    own, which TensorBoard shows together with the earlier ones.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._told = False
        if not isinstance(threading.excepthook, _WithoutWriters):
            threading.excepthook = _WithoutWriters(threading.excepthook)

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Add points to curves."""
        with self._begun_again_after_failure():
            super().log_metrics(*args, **kwargs)
            self._told = False

    def finalize(self, status: str) -> None:
        """Write what is not written yet."""
        with self._begun_again_after_failure():
            super().finalize(status)

    @contextmanager
    def _begun_again_after_failure(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError) as error:  # Lightning turns the one into the other
            cause = error if isinstance(error, OSError) else error.__cause__
            if not isinstance(cause, OSError):
                raise
            self._experiment: Any = None  # its thread has ended; the next point makes another
            for file in Path(self.log_dir).glob("events.*"):
                if not file.stat().st_size:  # made while the disk was full
                    file.unlink()
            if not self._told:
                self._told = True
                log.warning(
                    f"{self.log_dir}: {cause.strerror}; points of TensorBoard's curves are lost "
                    "until they can be written"
                )


class _WithoutWriters:
    """What Python does with the error of a thread, but not with those that `Curves` tells of."""

    def __init__(self, earlier: Callable[[threading.ExceptHookArgs], Any]) -> None:
        self.earlier = earlier

    def __call__(self, error: threading.ExceptHookArgs) -> None:
        is_writer = type(error.thread).__module__.startswith("tensorboard.")
        if not (is_writer and isinstance(error.exc_value, OSError)):
            self.earlier(error)


class MetricsFile(Logger):
    """Append a row to a CSV file whenever numbers are logged, in the first process.

    Rows are on their way to the disk at once, so a run that is killed loses none. A run that is
    resumed goes on below the rows up to its checkpoint; later ones are dropped, as their steps are
    made again. Rows that cannot be written, as on a full disk, wait for the next one.

    Args:
        path: the file; its columns are ``step`` and all names that were logged so far, sorted.
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.path = Path(path)
        self._columns: set[str] = set()  # of the file, as far as it is known
        self._waiting: list[dict[str, Any]] = []  # rows that are not in the file

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.path.stem

    @property
    def version(self) -> str:
        """Empty: there is one file."""
        return ""

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: ``config.yaml`` has them."""

    @rank_zero_only
    def continue_from(self, step: int, validates: bool = False) -> None:
        """Drop the rows that an earlier start wrote later.

        Args:
            step: go on after so many steps.
            validates: go on with the validation after the last of them.
        """
        rows = self._rows()
        kept = [row for row in rows if int(row["step"]) < step]
        if validates:
            again = (n for n, row in enumerate(kept) if _is_validation(row, step - 1))
            kept = kept[: next(again, None)]
        if len(kept) < len(rows):
            self._write(kept)

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Append a row.

        Args:
            metrics: numbers, by name.
            step: steps of the optimiser before the one that they belong to.
        """
        self._waiting.append({**metrics, "step": step})
        try:
            if self._columns.issuperset(itertools.chain(*self._waiting)):
                with open(self.path, "a", newline="", encoding="utf-8") as file:
                    csv.DictWriter(file, sorted(self._columns)).writerows(self._waiting)
            else:
                self._write([*self._rows(), *self._waiting])
        except OSError as error:
            self._columns = set()  # a row may be half written, so all are written anew
            log.warning(
                f"{self.path}: {error.strerror}; the next row will be written with this one"
            )
        else:
            self._waiting = []

    def _rows(self) -> list[dict[str, Any]]:
        """The rows of the file, without one that was cut off."""
        try:
            with open(self.path, newline="", encoding="utf-8") as file:
                return [row for row in csv.DictReader(file) if (row["step"] or "").isdecimal()]
        except FileNotFoundError:
            return []

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._columns = set().union(*rows)
        with (
            atomic_file(self.path) as temporary,
            open(temporary, "w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, sorted(self._columns))
            writer.writeheader()
            writer.writerows(rows)


def _is_validation(row: Mapping[str, str], step: int) -> bool:
    return int(row["step"]) == step and any(row[k] for k in row if k.startswith("val/"))
