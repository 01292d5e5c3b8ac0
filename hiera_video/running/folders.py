"""Folders of runs: choose one for a new run, find the newest, find a run's files."""

import os
import time
from pathlib import Path

from hiera_video.errors import UsageError

# Set by launchers: a name of the run on which all of its processes agree.
RUN_ID_VARIABLES = ("HIERA_VIDEO_RUN_ID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID")
# In the folder of a test. A test that is under way or was cut off has no results.json.
PREDICTIONS = "predictions.parquet*"


def run_folder(name: str, command: str, resume: str | None) -> str:
    """The folder of a run: a new one below ``runs``, or that of the resumed run.

    With ``resume=auto``, a launcher's job resumes only its own run, as others may be under way.

    Args:
        name: of the configuration.
        command: fit, validate, test or predict.
        resume: None, ``auto``, or the folder or checkpoint of a run.
    """
    # torchrun says "none" when it was given no id.
    ids = (os.environ[k] for k in RUN_ID_VARIABLES if os.environ.get(k, "none") != "none")
    job = next(ids, None)
    if resume == "auto" and job is None:
        newest = newest_training(name) if command == "fit" else newest_unfinished_test(name)
        if newest is not None:
            return str(newest)
    elif resume not in (None, "auto") and Path(resume).is_dir():
        return resume
    elif resume not in (None, "auto") and Path(resume).absolute().parent.name == "checkpoints":
        return str(Path(resume).absolute().parents[1])
    folder = f"runs/{name}/{command}-{job or time.strftime('%Y%m%d-%H%M%S')}"
    # Processes of one launcher share a folder; runs that start in the same second do not.
    return folder if job or not Path(folder).exists() else f"{folder}-{os.getpid()}"


def newest_training(name: str) -> Path | None:
    """Folder of a configuration's newest training run that has a checkpoint."""
    checkpoints = Path("runs", name).glob("fit-*/checkpoints/last.ckpt")
    newest = max(checkpoints, key=lambda path: path.stat().st_mtime, default=None)
    return newest and newest.parents[1]


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
        best = path / "checkpoints" / "best.ckpt"
        last = path / "checkpoints" / "last.ckpt"
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
