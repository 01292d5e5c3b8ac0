"""Check how a run is spread over devices and processes, before anything is started."""

import os

from lightning import Trainer
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, SingleDeviceStrategy
from omegaconf import DictConfig

from hiera_video.errors import UsageError

ONE_MODEL_A_DEVICE = (SingleDeviceStrategy, DDPStrategy)


def check_strategy_name(config: DictConfig) -> None:
    """Refuse a strategy by its name, as Lightning might look for packages and devices it needs.

    Raises:
        UsageError: it is neither ``auto`` nor a form of DDP.
    """
    strategy = config.trainer.get("strategy") or "auto"
    if isinstance(strategy, str) and strategy != "auto" and strategy.partition("_")[0] != "ddp":
        raise _not_trained_by(strategy)


def check_strategy(trainer: Trainer) -> None:
    """Refuse strategies that do not keep a whole model on each device.

    Gradients are clipped, weights averaged and checkpoints written as whole tensors.

    Raises:
        UsageError: the strategy is neither that of a single device nor DDP.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, ONE_MODEL_A_DEVICE) or isinstance(strategy, DeepSpeedStrategy):
        raise _not_trained_by(type(strategy).__name__)


def _not_trained_by(strategy: str) -> UsageError:
    return UsageError(
        f"trainer.strategy={strategy}: models are trained on one device or with DDP; leave it out, "
        "or set trainer.strategy=ddp"
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
