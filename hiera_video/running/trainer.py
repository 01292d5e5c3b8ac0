"""The trainer of a run, from its configuration."""

import logging
import warnings
from typing import Any

import lightning
from hydra.utils import instantiate
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from omegaconf import DictConfig

from hiera_video.callbacks.averaging import AveragedWeights
from hiera_video.callbacks.hyperparameters import Hyperparameters
from hiera_video.callbacks.pictures import showing
from hiera_video.callbacks.recovery import ContinueEpoch
from hiera_video.callbacks.run_record import RunRecord
from hiera_video.errors import UsageError
from hiera_video.running.best_checkpoint import KeepBest
from hiera_video.running.making import made
from hiera_video.running.processes import (
    check_precision,
    check_precision_of_training,
    check_strategy,
)
from hiera_video.running.saving import WholeCheckpoints
from hiera_video.tasks.cuda_graphs import check_mode, records_graphs
from hiera_video.terminal import did_you_mean

log = logging.getLogger(__name__)


def create_trainer(config: DictConfig, record: RunRecord) -> lightning.Trainer:
    """Make the trainer of a run, with its callbacks and loggers.

    Args:
        config: of the run.
        record: the callback that describes the run.

    Raises:
        UsageError: its parts do not go together, or with this machine.
    """
    callbacks, loggers = _instances(config, "callbacks"), []
    fits = config.command == "fit"
    if fits or config.command == "test":
        loggers = _instances(config, "logger")
    if not fits:  # no checkpoints and curves; a test draws pictures
        training_only = (Checkpoint, AveragedWeights, WeightAveraging)
        callbacks = [c for c in callbacks if not isinstance(c, training_only)]
        loggers = showing(loggers)
    ours = record, ContinueEpoch(), KeepBest()
    callbacks = [*ours, *callbacks, Hyperparameters(record.resolved)]
    plugins = instantiate(config.trainer.get("plugins"), _convert_="all") or []
    plugins = plugins if isinstance(plugins, list) else [plugins]
    if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
        plugins.append(WholeCheckpoints())
    trainer = instantiate(
        config.trainer,
        _convert_="all",
        callbacks=callbacks,
        enable_checkpointing=fits,
        logger=loggers,
        plugins=plugins,
    )
    check_strategy(trainer)
    if fits and config.data.get("val") is not None and trainer.is_global_zero:
        _warn_of_epochs_without_validation(trainer)
    precision, device = str(config.trainer.precision), trainer.strategy.root_device
    check_precision(precision, device)
    if fits:
        check_precision_of_training(precision)
    slow = fits and precision.startswith("bf16") and device.type == "cpu"
    if slow and trainer.is_global_zero:
        log.warning(
            f"{precision} on a CPU: a step may take minutes on one without instructions for "
            "bfloat16; trainer=cpu computes in float32"
        )
    mode = check_mode(config.task.get("compile"))
    if fits and records_graphs(mode) and device.type == "cpu":
        raise UsageError(f"task.compile={mode} needs a GPU; on a CPU use task.compile=default")
    return trainer


def _warn_of_epochs_without_validation(trainer: lightning.Trainer) -> None:
    epochs, every = trainer.max_epochs or 0, trainer.check_val_every_n_epoch
    if epochs < 1 or every is None or not (rest := epochs % every):
        return
    last = f"last of {epochs} epochs is" if rest == 1 else f"last {rest} of {epochs} epochs are"
    log.warning(
        f"trainer.check_val_every_n_epoch={every}: the {last} not validated; set a number that "
        f"divides {epochs}"
    )


def _instances(config: DictConfig, section: str) -> list[Any]:
    """The objects of a section, without those that are null.

    Raises:
        UsageError: an entry does not say what it makes, as one whose name is misspelt.
    """
    parts = made(config, section) if config.get(section) else {}
    for name, part in parts.items():
        if isinstance(part, dict):
            hint = did_you_mean(name, [other for other in parts if other != name])
            raise UsageError(f"{section}.{name} has no _target_{hint}")
    return [part for part in parts.values() if part]


def quiet_lightning() -> None:
    """Log Lightning's warnings once, in our format, and drop its tips."""
    logging.getLogger("lightning").handlers.clear()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    # A user can do nothing about these: Lightning 2.6 with torch >= 2.13; a hook that the data
    # module does not have; callbacks of the training that are not needed to evaluate a checkpoint;
    # a short epoch, though `ProgressLines` counts steps across epochs; a folder that is resumed, or
    # was moved.
    for message in (
        ".*LeafSpec.* is deprecated",
        "You have overridden `on_before_batch_transfer`",
        "Be aware that when using `ckpt_path`, callbacks",
        "The number of training batches .* is smaller than the logging interval",
        "Checkpoint directory .* exists and is not empty",
        "The dirpath has changed from",  # `KeepBest` reads the score
        "Total length of `list` across ranks is zero",  # without validation: `data.val=null`
        "FSDP2-wrapped module .* returned a view tensor",  # nothing of ours changes it in place
    ):
        warnings.filterwarnings("ignore", message=message)
