"""Folders of runs: choose and lock one for a new run, find the newest, find a run's files."""

import contextlib
import fcntl
import itertools
import logging
import os
import platform
import shutil
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from datamodules.files import take_lock
from hiera_video.errors import UsageError

log = logging.getLogger(__name__)

# Set by launchers: a name of the run on which all of its processes agree.
RUN_ID_VARIABLES = ("HIERA_VIDEO_RUN_ID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID")
# In the folder of a test. A test that is under way or was cut off has no results.json.
PREDICTIONS = "predictions.parquet*"
LAST, PREVIOUS, BEST = "last.ckpt", "previous.ckpt", "best.ckpt"
LOCK = ".lock"
# What is in the folder of a run before it has done anything.
BEFORE_WORK = {LOCK, ".hydra", "tensorboard", "metrics", "wandb", "wandb_id.txt", "mlflow_id.txt"}
# and the log of each process


def run_folder(name: str, command: str, resume: str | None) -> str:
    """The folder of a run: a new one below ``runs``, or that of the resumed run.

    With ``resume=auto``, a launcher's job resumes only its own run, as others may be under way.

    Args:
        name: of the configuration.
        command: fit, validate, test or predict.
        resume: None, ``auto``, or the folder or checkpoint of a run.
    """
    return _resumed_folder(name, command, resume) or _new_folder(name, command)


def own_run_folder(name: str, command: str, resume: str | None) -> str:
    """`run_folder`, where the folder of a new run is created, so that no other run gets it.

    All processes of a launcher's job share its folder; `locked` sees that they are of one run.
    """
    folder = _resumed_folder(name, command, resume)
    if folder is None:
        folder = _new_folder(name, command)
        return folder if _job_name() else _created(folder)
    return folder


def _resumed_folder(name: str, command: str, resume: str | None) -> str | None:
    if resume == "auto" and _job_name() is None:
        fits = command == "fit"
        newest = newest_training(name, idle=True) if fits else newest_unfinished_test(name)
        return newest and str(newest)
    if resume in (None, "auto"):
        return None
    if Path(resume).is_dir():
        return resume
    run = Path(resume).absolute().parent
    return str(run.parent) if run.name == "checkpoints" else None


def _new_folder(name: str, command: str) -> str:
    return f"runs/{name}/{command}-{_job_name() or time.strftime('%Y%m%d-%H%M%S')}"


def _created(folder: str) -> str:
    """Create a folder; of runs that start in the same second, the others get -2, -3, ..."""
    for number in itertools.count(1):
        path = folder if number == 1 else f"{folder}-{number}"
        try:
            Path(path).mkdir(parents=True)
        except FileExistsError:
            continue
        return path
    raise AssertionError("there is always another number")


def _job_name() -> str | None:
    """The name that a launcher gave all processes of this job; None without a launcher."""
    # torchrun says "none" when it was given no id.
    ids = (os.environ[k] for k in RUN_ID_VARIABLES if os.environ.get(k, "none") != "none")
    return next(ids, None)


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep other trainings out of a run's folder until this one, or its process, ends.

    The lock is POSIX's. It belongs to this process alone, not to the decoding processes that it
    forks, and the kernel gives it back however the process ends. Network file systems keep it
    across machines if their lock service runs; if they have none, the log says so. Half files of a
    save that was killed are removed. A process may lock a folder twice, but the first end gives
    back both.

    Raises:
        UsageError: another process trains there.
    """
    with open(run_dir / LOCK, "a+") as file:
        try:
            take_lock(file)
        except (BlockingIOError, PermissionError) as error:
            file.seek(0)
            raise UsageError(
                f"{run_dir}: {file.read().strip() or 'another process'} is training there; wait "
                "for it to end, or set another run_dir="
            ) from error
        except OSError as error:
            log.warning(
                f"{run_dir}: this file system has no locks ({error.strerror}), so nothing "
                "keeps a second run out of the folder"
            )
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        for unfinished in run_dir.glob("checkpoints/.*.unfinished"):
            unfinished.unlink(missing_ok=True)
        yield


def refuse_earlier_run(run_dir: Path) -> None:
    """See that a new training does not overwrite another one.

    Raises:
        UsageError: its folder has checkpoints.
    """
    for earlier in run_dir.glob("checkpoints/*.ckpt"):
        raise UsageError(f"{earlier} is of an earlier run; set resume=auto or another run_dir=")


def is_training(run_dir: Path) -> bool:
    """Whether another process trains in the folder of a run, on this machine or on another one."""
    return bool(is_locked(run_dir / LOCK))


def is_locked(path: Path) -> bool | None:
    """Whether another process, here or on another machine, has locked a file.

    None if that is not known: there is no such file, or the file system has no locks. A process
    that asks about its own lock gives it back; see `take_lock`.
    """
    try:
        with open(path, "r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return None
    return False


def remove_failed_start(run_dir: Path, before: Collection[str] = ()) -> None:
    """Remove what a run that failed has put into its folder, if it has not done anything yet.

    Args:
        run_dir: the folder, which is removed if nothing else is in it.
        before: names of what was in the folder before the run, which stays.
    """
    if not run_dir.is_dir():
        return
    new = [path for path in run_dir.iterdir() if path.name not in before]
    if not all(path.name in BEFORE_WORK or path.suffix == ".log" for path in new):
        return
    for path in new:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else is in it
        run_dir.rmdir()
        name = os.path.relpath(run_dir.parent)
        if name.partition(os.sep)[0] == "runs":
            os.removedirs(name)


def newest_training(name: str, idle: bool = False) -> Path | None:
    """Folder of a configuration's newest training run that has a checkpoint.

    Args:
        name: of the configuration.
        idle: leave out runs that are under way.
    """
    checkpoints = Path("runs", name).glob("fit-*/checkpoints/*.ckpt")
    newest_first = sorted(checkpoints, key=lambda path: path.stat().st_mtime, reverse=True)
    folders = dict.fromkeys(path.parents[1] for path in newest_first)
    return next((f for f in folders if not (idle and is_training(f))), None)


def newest_checkpoint(files: Iterable[Path]) -> Path | None:
    """The file that was written last; None if there are none."""
    return max(files, key=lambda path: path.stat().st_mtime, default=None)


def newest_unfinished_test(name: str) -> Path | None:
    """Folder of a configuration's newest test that was cut off."""
    tests = {path.parent for path in Path("runs", name).glob(f"test-*/{PREDICTIONS}")}
    unfinished = (folder for folder in tests if not (folder / "results.json").exists())
    return max(unfinished, key=lambda folder: folder.stat().st_mtime, default=None)


def is_run(path: Path) -> bool:
    """Whether a path is a checkpoint, or the folder of a training run that has one."""
    return path.suffix == ".ckpt" if path.is_file() else any(path.glob("checkpoints/*.ckpt"))


def checkpoint_of(path: Path, newest: bool) -> Path:
    """The checkpoint that a path stands for.

    Args:
        path: a checkpoint, or the folder of a run.
        newest: choose the last checkpoint of a folder, to resume it; else the best one, if any.

    Raises:
        UsageError: there is no checkpoint.
    """
    checkpoint = path
    if path.is_dir():
        best, last = path / "checkpoints" / BEST, path / "checkpoints" / LAST
        checkpoint = best if best.exists() and not newest else last
    if not checkpoint.is_file():
        raise UsageError(f"{checkpoint}: no such checkpoint")
    return checkpoint


def config_file(run: Path) -> Path | None:
    """The ``config.yaml`` of a run, given its folder or a checkpoint in it; None if it is gone."""
    if not run.is_dir():
        run = run.absolute()
        if run.parent.name != "checkpoints":
            return None
        run = run.parents[1]
    file = run / "config.yaml"
    return file if file.is_file() else None
