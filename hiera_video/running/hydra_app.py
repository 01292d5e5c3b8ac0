"""Hydra around a run: where it writes, how its processes find each other, how its errors end."""

import functools
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from hiera_video.running.usage_errors import check_values, explain
from hiera_video.running.words import HydraCall, UsageError, conf_dir
from hiera_video.tasks.budget import passes

# What a launcher calls this run, so that all its processes agree on the folder.
RUN_ID_VARIABLES = ("HIERA_VIDEO_RUN_ID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID")
# In the folder of a test; of one that is under way or was cut off there is no results.json.
PREDICTIONS = "predictions.parquet*"
# What Lightning leaves behind; the next job of a sweep would take itself for a rank of the last.
DDP_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def main(call: HydraCall) -> None:
    """Compose and run, once or as a sweep.

    Raises:
        UsageError: the configuration or the data is wrong.
    """
    register_resolvers()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us as they were raised
    sys.argv[1:] = call.argv
    _check_launcher(call)
    job = functools.wraps(_job)(functools.partial(_job, call))
    with _explained(call):
        check_values(call)
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=None)(job)()


def register_resolvers() -> None:
    """What our configurations compute: ``${run_folder:...}`` and ``${passes:...}``."""
    OmegaConf.register_new_resolver("run_folder", run_folder, use_cache=True, replace=True)
    OmegaConf.register_new_resolver("passes", passes, replace=True)


def _check_launcher(call: HydraCall) -> None:
    """Each rank that torchrun starts would choose a folder by its own clock."""
    unnamed = os.environ.get("TORCHELASTIC_RUN_ID") == "none"
    several = os.environ.get("WORLD_SIZE", "1") != "1" and not os.environ.get("HIERA_VIDEO_RUN_ID")
    if unnamed and several and not any(w.startswith("run_dir=") for w in call.overrides):
        raise UsageError("torchrun gives this run no name: set HIERA_VIDEO_RUN_ID, or run_dir=")


def shell_completion(words: list[str]) -> None:
    """Install, remove or answer Hydra's completion: ``-sc install=bash``."""
    sys.argv[1:] = words
    nothing = hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name="hiera_video")
    nothing(lambda _: None)()


def run_folder(name: str, command: str, resume: str | None) -> str:
    """Folder of a run: a new one below ``runs``, or the one that is resumed.

    A launcher's job resumes its own run only: another job's may be under way.
    """
    # "none" is what torchrun says when it was given no id.
    given = (os.environ[k] for k in RUN_ID_VARIABLES if os.environ.get(k, "none") != "none")
    job = next(given, None)
    if resume == "auto" and job is None:
        newest = newest_training(name) if command == "fit" else newest_unfinished_test(name)
        if newest is not None:
            return str(newest)
    elif resume not in (None, "auto") and Path(resume).is_dir():
        return resume
    elif resume not in (None, "auto") and Path(resume).absolute().parent.name == "checkpoints":
        return str(Path(resume).absolute().parents[1])
    folder = f"runs/{name}/{command}-{job or time.strftime('%Y%m%d-%H%M%S')}"
    # Processes of one launcher must agree; others begun in the same second must not.
    return folder if job or not Path(folder).exists() else f"{folder}-{os.getpid()}"


def newest_training(name: str) -> Path | None:
    """Folder of the newest training run of a configuration that has a checkpoint."""
    found = Path("runs", name).glob("fit-*/checkpoints/last.ckpt")
    newest = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return newest and newest.parents[1]


def newest_unfinished_test(name: str) -> Path | None:
    """Folder of the newest test of a configuration that was cut off."""
    found = {path.parent for path in Path("runs", name).glob(f"test-*/{PREDICTIONS}")}
    unfinished = (folder for folder in found if not (folder / "results.json").exists())
    return max(unfinished, key=lambda folder: folder.stat().st_mtime, default=None)


def _job(call: HydraCall, config: DictConfig) -> float | None:
    """What Hydra calls, once or for each job of a sweep."""
    hydra_config: Any = HydraConfig.get()
    run_dir = hydra_config.runtime.output_dir
    # Lightning starts the other ranks with `sys.argv` and `hydra.run.dir`. The words must be those
    # of this one job: with the original ones each rank would run the whole sweep again.
    words = [word for word in call.overrides if word.startswith("hydra.searchpath=")]
    words += [word for word in hydra_config.overrides.task if not word.startswith("++command=")]
    flags = [flag for flag in call.flags if flag not in ("-m", "--multirun")]
    sys.argv[1:] = [call.command, "--config", call.config, *flags, *words]
    with read_write(hydra_config), open_dict(hydra_config):
        hydra_config.run.dir = run_dir
    config.run_dir = run_dir

    from hiera_video.running.run import (
        run,  # torch and Lightning, once the configuration is known good
    )

    launcher = {name: os.environ.get(name) for name in DDP_VARIABLES}
    try:
        with _explained(call):
            return run(config)
    except UsageError as error:
        _remove_if_empty(Path(run_dir))
        # Hydra would print its own line for an exception, and lets an exit pass.
        print(f"hiera-video: {error}", file=sys.stderr)
        sys.exit(error.code)
    finally:
        _leave_process_group(launcher)


def _remove_if_empty(run_dir: Path) -> None:
    """Leave no folder of a run that did not begin."""
    if run_dir.is_dir() and {path.name for path in run_dir.iterdir()} <= {".hydra", "log.log"}:
        shutil.rmtree(run_dir, ignore_errors=True)


@contextmanager
def _explained(call: HydraCall) -> Iterator[None]:
    """Turn an error that the user caused into a UsageError; any other keeps its traceback."""
    try:
        yield
    except Exception as error:
        explanation = explain(error, call)
        if explanation is None or os.environ.get("HIERA_VIDEO_TRACEBACK"):
            raise
        raise explanation from error


def _leave_process_group(launcher: dict[str, str | None]) -> None:
    """Forget the ranks of this job, but not what an outer launcher such as torchrun had set."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    for name, value in launcher.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
