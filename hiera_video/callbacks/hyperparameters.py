"""The settings of a run as hyperparameters, to compare runs by."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from torch.utils.tensorboard.summary import hparams
from torch.utils.tensorboard.writer import SummaryWriter

from hiera_video.callbacks.pictures import showing

log = logging.getLogger(__name__)

SECTIONS = ("name", "seed", "task", "model", "data", "trainer")
OF_SECTION = {
    "data": ("batch_size", "repeats", "num_frames", "stride", "fps", "size", "crop_scale", "train"),
    "trainer": ("precision", "max_epochs", "max_steps", "gradient_clip_val"),
}
LEFT_OUT = ("task.model", "task.recipe", "task.seed", "task.compile", "task.class_names")
FINAL = "final"  # TensorBoard's folder of them
Value = bool | int | float | str


class Hyperparameters(Callback):
    """Log the settings of a run, as keys of its configuration, with the metrics it ended with.

    Weights & Biases and MLflow get the settings when a run begins. TensorBoard shows settings only
    together with metrics, so it gets them when the training ends, in a folder of their own, in
    place of those of an earlier end of the run. The metrics are ``final/...``, the last value of
    each number of the validation, and ``best/...``, that of the best checkpoint.

    Args:
        config: the configuration as plain values.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.values = hyperparameters(config)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log to services."""
        self._to_services(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log to services."""
        self._to_services(trainer)

    def _to_services(self, trainer: Trainer) -> None:
        for logger in showing(trainer.loggers):
            if not isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(self.values)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the final metrics."""
        metrics = {**_best(trainer), **_final(trainer)}
        if not trainer.is_global_zero or not metrics:
            return
        for logger in showing(trainer.loggers):
            if not isinstance(logger, TensorBoardLogger):
                logger.log_metrics(metrics, trainer.global_step)
            else:
                folder = Path(logger.log_dir, FINAL)
                _write(folder, self.values, metrics, trainer.global_step)


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Value]:
    """The settings of a configuration that matter for what a model learns.

    Args:
        config: plain values.

    Returns:
        Numbers, switches and texts by the keys of the configuration; a list is one text, and an
        object in a section is the name of its class. What is null is left out.
    """
    values = {}
    for section in SECTIONS:
        part = config.get(section)
        if isinstance(part, Mapping) and section in OF_SECTION:
            part = {name: part[name] for name in OF_SECTION[section] if name in part}
        values.update(_flat(section, part))
    return values


def _flat(key: str, value: Any) -> Iterator[tuple[str, Value]]:
    if key in LEFT_OUT:
        return
    if isinstance(value, Mapping):
        if "_target_" in value and "." in key:
            yield key, str(value["_target_"]).rpartition(".")[2]
        for name, inner in value.items():
            if not name.startswith("_"):
                yield from _flat(f"{key}.{name}", inner)
    elif isinstance(value, list):
        yield key, " ".join(map(str, value))
    elif isinstance(value, Value):
        yield key, value


def _final(trainer: Trainer) -> dict[str, float]:
    """The last value of each number of the validation, such as ``final/top1``."""
    return {
        f"final/{name.removeprefix('val/')}": float(value)
        for name, value in trainer.callback_metrics.items()
        if name.startswith("val/")
    }


def _best(trainer: Trainer) -> dict[str, float]:
    """The number of the best checkpoint, such as ``best/top1``."""
    return {
        f"best/{saver.monitor.removeprefix('val/')}": float(saver.best_model_score)
        for saver in trainer.checkpoint_callbacks
        if isinstance(saver, ModelCheckpoint)
        and saver.monitor
        and saver.best_model_score is not None
    }


def _write(
    folder: Path, values: Mapping[str, Value], metrics: Mapping[str, float], step: int
) -> None:
    """Write hyperparameters and metrics for TensorBoard.

    It takes the first settings in a folder, and all of its curves as metrics; hence a folder for
    them alone. A list of all settings and metrics, as `SummaryWriter.add_hparams` writes it, would
    hide those that only other runs have.
    """
    try:
        for earlier in folder.glob("events.*"):
            earlier.unlink()
        _, start, end = hparams(dict(values), {})
        with SummaryWriter(str(folder)) as writer:
            for summary in (start, end):
                writer._get_file_writer().add_summary(summary, step)
            for name, value in metrics.items():
                writer.add_scalar(name, value, step)
    except OSError as error:
        log.warning(f"{folder}: no hyperparameters for TensorBoard: {error.strerror}")
