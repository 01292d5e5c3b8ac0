"""Processes that a launcher, such as torchrun or srun, or Lightning has started for one run.

All is read from the environment, before torch is imported.
"""

import os
import sys

from omegaconf import DictConfig, OmegaConf

from hiera_video.errors import UsageError
from hiera_video.running.words import HydraCall

RANK_VARIABLES = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")
# Lightning leaves these set; the next job of a sweep would take itself for a rank of the last one.
DDP_VARIABLES = ("LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def are_several() -> bool:
    """Whether several processes of this run have been started.

    SLURM_NTASKS would not do: it is also that of a job's script, which is a single process.
    """
    step = os.environ.get("SLURM_STEP_NUM_TASKS")  # of srun
    return (os.environ.get("WORLD_SIZE") or step or "1") != "1"


def is_first() -> bool:
    """Whether this is the first process of a run, as far as its launcher says."""
    return all(os.environ.get(name, "0") == "0" for name in RANK_VARIABLES)


def check_name(call: HydraCall) -> None:
    """Refuse unnamed ranks of torchrun: each would name the run folder by its own clock.

    Raises:
        UsageError: torchrun has started several of a single run, without a name.
    """
    is_sweep = not {"-m", "--multirun"}.isdisjoint(call.flags)  # see `check_sweep`
    unnamed = os.environ.get("TORCHELASTIC_RUN_ID") == "none"
    several = are_several() and not os.environ.get("HIERA_VIDEO_RUN_ID")
    if unnamed and several and not is_sweep and call.value("run_dir") is None:
        raise UsageError("torchrun gave this run no name: set HIERA_VIDEO_RUN_ID or run_dir=")


def check_sweep(config: DictConfig) -> None:
    """Refuse a sweep of which each process of a launcher would run every job.

    They would meet for the second job where they met for the first one, at addresses that are no
    longer there, and each would name the sweep's folder by its own clock.

    Args:
        config: of the sweep, with ``hydra``.

    Raises:
        UsageError: several processes have been started, or one on each of several machines.
    """
    # SLURM starts the processes of submitit's jobs, on as many machines as a job has.
    submits = config.hydra.launcher._target_.endswith(".SlurmLauncher")
    machines = 1 if submits else OmegaConf.select(config, "trainer.num_nodes", default=1)
    if are_several() or machines != 1:
        raise UsageError(
            "a sweep starts the processes of its jobs: start it on one machine without torchrun or "
            "srun and set trainer.devices, or use hydra/launcher=submitit_slurm"
        )


def leave_process_group(launcher: dict[str, str | None]) -> None:
    """Forget the ranks of a job; restore what had been set before.

    Args:
        launcher: the values of `DDP_VARIABLES` before the job; None: it was not set.
    """
    dist = sys.modules.get("torch.distributed")  # none if Ctrl-C came before its import
    if dist is not None and dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
    for name, value in launcher.items():
        os.environ.pop(name, None)
        if value is not None:
            os.environ[name] = value
