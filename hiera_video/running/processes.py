"""How a run is spread over devices and processes, and how SLURM starts it again."""

import logging
import os
import signal
import subprocess

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from omegaconf import DictConfig

from hiera_video.errors import UsageError
from hiera_video.models.precision import AUTOCAST, PRECISIONS, full_name
from hiera_video.tasks.sharded_strategy import ShardedStrategy

log = logging.getLogger(__name__)

ONE_MODEL_A_DEVICE = (SingleDeviceStrategy, DDPStrategy)


def check_accelerator(config: DictConfig) -> None:
    """Refuse to compute on a GPU where there is none, which Lightning would say without a remedy.

    Those of Apple are refused, as they lack float64, which metrics need.

    Raises:
        UsageError: ``trainer.accelerator`` stands for a GPU that PyTorch does not find, or that it
            does not use through CUDA or ROCm.
    """
    accelerator = str(config.trainer.get("accelerator"))
    apple = torch.backends.mps.is_available()  # which Lightning's "auto" takes, too
    gpus = ("gpu", "cuda", "mps", "auto") if apple else ("gpu", "cuda", "mps")
    if accelerator not in gpus or (torch.cuda.is_available() and accelerator != "mps"):
        return
    built = torch.backends.cuda.is_built() or apple
    reason = "" if built else ", as it is a build for the CPU alone"
    raise UsageError(
        f"trainer.accelerator={accelerator}: PyTorch finds no CUDA GPU on this machine{reason}; "
        "use trainer=cpu (with a RUN: trainer.accelerator=cpu)"
    )


def check_precision(precision: str | int, device: torch.device) -> None:
    """Refuse to compute in float16 on a CPU.

    Args:
        precision: ``trainer.precision``.
        device: on which to compute.

    Raises:
        UsageError: it is float16 on a CPU.
    """
    if str(precision).startswith("16") and device.type == "cpu":
        raise UsageError(
            f"trainer.precision={precision} needs a GPU; on a CPU use bf16-mixed or 32-true"
        )


def check_precision_of_training(precision: str) -> None:
    """Refuse to train weights in 16 bits.

    Their steps, moments and averages are rounded away: in bfloat16, most steps below 1/256 of a
    weight.

    Args:
        precision: ``trainer.precision``.

    Raises:
        UsageError: it keeps weights in 16 bits.
    """
    if (name := full_name(precision)) in PRECISIONS and name not in AUTOCAST:
        raise UsageError(
            f"trainer.precision={precision} keeps weights and the optimiser's state in 16 bits, "
            f"where small steps are lost; train with {name.replace('true', 'mixed')}"
        )


def check_strategy_name(config: DictConfig) -> None:
    """Refuse a strategy by its name, as Lightning might look for packages and devices it needs.

    Raises:
        UsageError: it is neither ``auto`` nor a form of DDP.
    """
    strategy = config.trainer.get("strategy") or "auto"
    if isinstance(strategy, str) and strategy != "auto" and strategy.partition("_")[0] != "ddp":
        raise _not_trained_by(strategy)


def check_strategy(trainer: Trainer) -> None:
    """Refuse strategies that would train wrongly.

    Raises:
        UsageError: the strategy is neither that of a single device, nor DDP, nor sharded; or
            Lightning's own callback is to average sharded weights.
    """
    strategy = trainer.strategy
    if isinstance(strategy, ShardedStrategy):
        if any(isinstance(c, WeightAveraging) for c in trainer.callbacks):  # pyright: ignore
            raise UsageError(
                "callbacks: WeightAveraging cannot average a sharded network; set "
                "callbacks.ema.decay in its place"
            )
    elif not isinstance(strategy, ONE_MODEL_A_DEVICE) or isinstance(strategy, DeepSpeedStrategy):
        raise _not_trained_by(type(strategy).__name__)


def _not_trained_by(strategy: str) -> UsageError:
    return UsageError(
        f"trainer.strategy={strategy}: models are trained on one device, with DDP (trainer=ddp) or "
        "sharded (trainer=fsdp2)"
    )


def check_processes(trainer: Trainer) -> None:
    """See that a launcher has started as many processes as the trainer has devices.

    Raises:
        UsageError: it has started more or fewer.
    """
    wanted = trainer.num_devices * trainer.num_nodes
    if TorchElasticEnvironment.detect():
        started = int(os.environ["WORLD_SIZE"])
    elif SLURMEnvironment.detect() and wanted > 1:  # else a job's script, which srun did not start
        started = int(os.environ["SLURM_NTASKS"])
    else:
        return
    if started != wanted:
        raise UsageError(
            f"{started} processes were started for {trainer.num_devices} devices on "
            f"{trainer.num_nodes} nodes: start {wanted} (srun --ntasks-per-node, torchrun "
            f"--nproc-per-node), or set trainer.devices and trainer.num_nodes"
        )


def devices_to_predict(accelerator: str, videos: int) -> int:
    """The value of ``trainer.devices`` that ``auto`` stands for in predictions.

    Args:
        accelerator: ``trainer.accelerator``.
        videos: number of videos; no device is left without one.
    """
    gpus = 0 if accelerator == "cpu" else torch.cuda.device_count()
    return min(videos, max(1, gpus))


def queue_again(number: int) -> None:
    """Have this job started again after a signal that asks for it; other signals do nothing.

    Args:
        number: SIGUSR1, which SLURM sends; or SIGUSR2, which submitit listens to.

    Raises:
        SystemExit: submitit has queued the job again.
        UsageError: submitit does not queue it again.
    """
    if number == signal.SIGUSR1:
        _requeue()
    if number != signal.SIGUSR2:
        return
    try:
        signal.raise_signal(number)
    except SystemExit as stop:
        stop.add_note("queued again")  # for the table of the sweep
        raise
    except Exception as error:
        raise UsageError(
            f"all is saved, but the job is not queued again ({error}); hydra.launcher."
            "max_num_timeout is how often it may run out of time, and hydra.sweep.dir=SWEEP "
            "resume=auto goes on",
            1,
        ) from error


def _requeue() -> None:
    """Have SLURM start this job again; nothing is done outside a job of SLURM."""
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        return
    if array := os.environ.get("SLURM_ARRAY_JOB_ID"):
        job = f"{array}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    command = ["scontrol", "requeue", job]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or error
        log.error(f"the job is not queued again, start it by hand: {' '.join(command)}: {reason}")
    else:
        log.info(f"job {job} is queued again; it goes on if its command has resume=auto")
