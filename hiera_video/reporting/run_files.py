"""What lies in the folder of a run, and in those of its tests."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from hiera_video.errors import UsageError
from hiera_video.results.run_files import logged_rows, number_in, read_or_none

RESULTS, PREDICTIONS = "results.json", "predictions.parquet"
BAD_VIDEOS = "bad_videos.csv"
OF_A_RUN = ("config.yaml", "run.json", "metrics", "reconstructions", RESULTS)


class Curve(NamedTuple):
    """The values of one logged number, by the step of the optimiser.

    Attributes:
        steps: steps done, ascending.
        values: as many finite numbers.
        left_out: number of values that were not finite.
    """

    steps: list[int]
    values: list[float]
    left_out: int


class Evaluation(NamedTuple):
    """An evaluation of a run.

    Attributes:
        folder: of the evaluation.
        results: its ``results.json``.
        unchanged: whether the weights that it tested are still those of the run.
    """

    folder: Path
    results: Mapping[str, Any]
    unchanged: bool

    @property
    def kind(self) -> str:
        """``test`` or ``validation``."""
        return "validation" if self.results.get("command") == "validate" else "test"

    @property
    def weights(self) -> str:
        """Name of the file that was tested."""
        return Path(_path_of(self.results)).name or "unknown weights"

    @property
    def predictions(self) -> Path | None:
        """The table of its predictions, if it wrote one."""
        file = self.folder / PREDICTIONS
        return file if file.is_file() else None


def run_folder_of(path: Path) -> Path:
    """The folder of a run, given the folder itself or a checkpoint in it.

    Raises:
        UsageError: it is no run.
    """
    folder = path
    if path.is_file() and path.absolute().parent.name == "checkpoints":
        folder = path.absolute().parents[1]
    if not folder.is_dir():
        raise UsageError(f"{path}: no such run; name the folder of a run, or a checkpoint in it")
    if not any((folder / name).exists() for name in OF_A_RUN):
        raise UsageError(f"{path}: not the folder of a run: it has none of {', '.join(OF_A_RUN)}")
    return folder


def curves_of(folder: Path) -> dict[str, Curve]:
    """The numbers that a run logged, by name, from all of its ``metrics.csv``."""
    points: dict[str, list[tuple[int, float]]] = {}
    for row in logged_rows(folder):
        if not row.get("step", "").isdecimal():  # a row that was cut off
            continue
        step = int(row["step"]) + 1  # the file counts the steps before this one
        for name, text in row.items():
            if name not in ("step", "epoch") and (value := number_in(text)) is not None:
                points.setdefault(name, []).append((step, value))
    return {name: _curve(values) for name, values in sorted(points.items())}


def _curve(points: list[tuple[int, float]]) -> Curve:
    finite = sorted({step: value for step, value in points if math.isfinite(value)}.items())
    steps, values = [step for step, _ in finite], [value for _, value in finite]
    return Curve(steps, values, sum(not math.isfinite(value) for _, value in points))


def reconstructions_of(folder: Path) -> list[tuple[int, Path]]:
    """The pictures of a pretraining and their steps, ascending."""
    pictures = {
        int(match[1]): file
        for file in folder.glob("reconstructions/step-*.png")
        if (match := re.fullmatch(r"step-(\d+)", file.stem))
    }
    return sorted(pictures.items())


def evaluation_in(folder: Path, run: Path) -> Evaluation:
    """Read the evaluation in a folder.

    Raises:
        UsageError: there is none, or its ``results.json`` cannot be read.
    """
    file = folder / RESULTS
    if not file.is_file():
        raise UsageError(f"{folder}: no {RESULTS}, so no test ended there")
    results = read_or_none(file)
    if not isinstance(results, dict):
        raise UsageError(f"{file}: not the results of a test")
    return Evaluation(folder, results, _stamp(results) in _stamps(run))


def evaluations_of(run: Path) -> list[Evaluation]:
    """The evaluations of a run's checkpoints: tests, then validations, the newest of each first.

    They lie in the run's own folder, or in one in it or beside it. Each names the weights that it
    tested by path, size and time, so one beside a run that was moved since is found, too.
    """
    run_folder = run.absolute()
    beside = run_folder.parent.glob(f"*/{RESULTS}")
    files = [run_folder / RESULTS, *run_folder.glob(f"*/{RESULTS}"), *beside]
    present = {file: file.stat().st_mtime for file in files if file.is_file()}
    stamps = _stamps(run)
    found: list[Evaluation] = []
    for file in sorted(present, key=lambda file: present[file], reverse=True):
        results = read_or_none(file)
        if not isinstance(results, dict):
            continue
        unchanged = _stamp(results) in stamps
        ours = Path(_path_of(results)).parent == (run / "checkpoints").resolve()
        if unchanged or ours or run_folder in file.parents:
            found.append(Evaluation(file.parent, results, unchanged))
    return sorted(found, key=lambda evaluation: evaluation.kind)


def _path_of(results: Mapping[str, Any]) -> str:
    """The path of the weights; a stamp is path, size and time, the name of weights is itself."""
    text = str(results.get("weights") or "")
    parts = text.rsplit(" ", 2)
    return parts[0] if len(parts) == 3 and parts[1].isdecimal() else text


def _stamp(results: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(results.get("weights")).rsplit(" ", 2)[1:])


def _stamps(run: Path) -> set[tuple[str, str]]:
    """Size and time of the checkpoints of a run."""
    states = [file.stat() for file in run.glob("checkpoints/*.ckpt")]
    return {(str(state.st_size), str(state.st_mtime_ns)) for state in states}
