"""The jobs of a sweep: a record of each, a table of all, and the best of them."""

import contextlib
import json
import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

from datamodules.files import take_lock, write_json
from hiera_video.errors import UsageError
from hiera_video.running.folders import is_locked, is_run, newest_checkpoint

# In the folder of a sweep: a file for each job, written by its first process, and one that this
# process locks while it runs. Jobs may run at the same time, on several machines.
RECORDS = ".jobs"
TABLE = "sweep.json"
NOT_RANKED = (
    "the jobs are not ranked: none has logged a metric that checkpoints are kept by; "
    "optimized_metric=NAME ranks them by one that they log, such as val/loss"
)


class OtherListError(UsageError):
    """A sweep was started again with another list of values."""


class Score(NamedTuple):
    """What a job is compared by.

    Attributes:
        metric: its name.
        mode: ``max`` if higher values are better, or ``min``.
        value: of the metric.
    """

    metric: str
    mode: str
    value: float


@dataclass
class Job:
    """One job of a sweep.

    Attributes:
        number: from 0.
        overrides: ``key=value`` words of this job, including those that all jobs share.
        folder: of its run, relative to that of the sweep.
        status: running, finished, failed, interrupted, or killed: ended without a word.
        reason: why it failed or was interrupted, in one line.
        metric: as in `Score`; None if there is none.
        mode: as in `Score`.
        value: as in `Score`; None if unknown or not finite.
        swept: those of the overrides that the sweep varies.
    """

    number: int
    overrides: list[str]
    folder: str
    status: str = "running"
    reason: str | None = None
    metric: str | None = None
    mode: str = "max"
    value: float | None = None
    swept: list[str] = field(default_factory=list)


@contextmanager
def recorded(job: Job, sweep: Path) -> Iterator[Job]:
    """Keep a record of a job in the folder of its sweep; its metric is set within the context.

    A job that was finished stays so if it is started again and does nothing more.

    Raises:
        OtherListError: the folder has a job of this number with other swept values, which stays.
    """
    file = sweep / RECORDS / f"{job.number}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    earlier = _job_in(file) if file.exists() else job
    _refuse_other_values(earlier, job, sweep)
    with open(_lock_of(file), "a") as lock:
        with contextlib.suppress(OSError):  # without locks, a killed job seems to run
            take_lock(lock)
        write_json(file, asdict(job))
        try:
            yield job
            job.status = "finished"
        except BaseException as error:
            job.status, job.reason = _ending(error)
            raise
        finally:
            if job.value is not None and not math.isfinite(job.value):
                job.value = None
            done = earlier.status == "finished" and job.value is None
            write_json(file, asdict(earlier if done else job))


def _job_in(record: Path) -> Job:
    return Job(**json.loads(record.read_text(encoding="utf-8")))


def _refuse_other_values(earlier: Job, job: Job, sweep: Path) -> None:
    """See that a job which has run before does not go on with other swept values."""
    if {*earlier.swept} <= {*job.overrides} and {*job.swept} <= {*earlier.overrides}:
        return
    keys = {_key(word) for word in (*earlier.swept, *job.swept)}
    before, now = (
        " ".join(word for word in each.overrides if _key(word) in keys) or "the defaults"
        for each in (earlier, job)
    )
    raise OtherListError(
        f"{sweep / earlier.folder} is of {before}, not of {now}; begin the sweep's lists as they "
        "were, or set another hydra.sweep.dir="
    )


def _key(word: str) -> str:
    return word.partition("=")[0].lstrip("+")


def _lock_of(record: Path) -> Path:
    return record.with_suffix(".lock")


def _ending(error: BaseException) -> tuple[str, str]:
    """The status of a job that an exception has ended, and why, in one line."""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted", "Ctrl-C"
    if isinstance(error, SystemExit):
        if notes := getattr(error, "__notes__", None):
            return "interrupted", notes[0]
        code = error.code if isinstance(error.code, int) else 1
        names = {128 + number: number.name for number in signal.Signals}
        return "interrupted", names.get(code, f"exit code {code}")
    return "failed", " ".join(str(error).split()) or type(error).__name__


def is_sweep(path: Path) -> bool:
    """Whether a path is the folder of a sweep."""
    return (path / RECORDS).is_dir()


def newest_sweep(name: str) -> Path | None:
    """Folder of a configuration's newest sweep of trainings, if it is newer than all its runs."""
    newest = newest_checkpoint(Path("multirun", name).glob("*/*/checkpoints/*.ckpt"))
    run = newest_checkpoint(Path("runs", name).glob("fit-*/checkpoints/*.ckpt"))
    if newest is None or (run and run.stat().st_mtime > newest.stat().st_mtime):
        return None
    return newest.parents[2] if is_sweep(newest.parents[2]) else None


def jobs_of(sweep: Path) -> list[Job]:
    """The jobs of a sweep that have begun, best first; those without a metric come last."""
    jobs = [_read(file) for file in (sweep / RECORDS).glob("[0-9]*.json")]
    return sorted(jobs, key=lambda job: (_rank(job), job.number))


def _read(record: Path) -> Job:
    # Asked first: a job that ends after this question has written its record before.
    ended = is_locked(_lock_of(record)) is False
    job = _job_in(record)
    if job.status == "running" and ended:
        job.status, job.reason = "killed", "its process is gone without a word (out of memory?)"
    return job


def _rank(job: Job) -> float:
    if job.status != "finished" or job.value is None:
        return math.inf
    return -job.value if job.mode == "max" else job.value


def best_job(sweep: Path) -> tuple[Path, str]:
    """The run of a sweep's best job.

    Returns:
        Its folder, and why it was taken, in one line.

    Raises:
        UsageError: no job of the sweep has finished, or they have no metric, or no checkpoint.
    """
    jobs = jobs_of(sweep)
    finished = [job for job in jobs if job.status == "finished"]
    if not finished:
        raise UsageError(f"{sweep}: no job of this sweep has finished; name the run of one")
    best = finished[0]
    if best.value is None:
        raise UsageError(
            f"{sweep}: its jobs have no metric to be compared by (optimized_metric=NAME sets one); "
            "name the run of one"
        )
    folder = sweep / best.folder
    if not is_run(folder):
        raise UsageError(f"{folder}: the best job of this sweep has no checkpoint")
    order = "highest" if best.mode == "max" else "lowest"
    value = f"{best.metric} {best.value:.4f}"
    words = " ".join(_differing(jobs)[best.number])
    return folder, f"job {best.number} ({words}): {order} {value} of {len(finished)} finished jobs"


def report(sweep: Path) -> None:
    """Print the table of a sweep, and write it to ``sweep.json``."""
    jobs = jobs_of(sweep)
    if not jobs:
        return
    write_json(sweep / TABLE, [asdict(job) for job in jobs])
    first, differing = jobs[0], _differing(jobs)
    order = f", {'highest' if first.mode == 'max' else 'lowest'} {first.metric} first"
    print(f"jobs of {sweep}{order if first.value is not None else ''}:")
    rows = [("job", first.metric or "metric", "status", "folder", "overrides", "")]
    for job in jobs:
        value = "-" if job.value is None else f"{job.value:.4f}"
        words = " ".join(differing[job.number])
        rows.append((str(job.number), value, job.status, job.folder, words, job.reason or ""))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print(f"  {'  '.join(cells)}".rstrip())
    print(f"table in {sweep / TABLE}")
    if not any(job.metric for job in jobs) and any(job.status == "finished" for job in jobs):
        print(NOT_RANKED)


def _differing(jobs: list[Job]) -> dict[int, list[str]]:
    """For each job, the overrides that not all jobs have; all of them if there is one job."""
    shared = set.intersection(*(set(job.overrides) for job in jobs)) if len(jobs) > 1 else set()
    return {job.number: [word for word in job.overrides if word not in shared] for job in jobs}
