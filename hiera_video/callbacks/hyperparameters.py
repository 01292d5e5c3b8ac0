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

# TensorBoard shows the first ones without being asked.
FIRST = ("name", "model.name", "task.lr", "data.batch_size", "task.epochs.count")
SECTIONS = ("name", "seed", "task", "model", "data", "trainer")
OF_SECTION = {
    "data": ("batch_size", "repeats", "num_frames", "stride", "fps", "size", "crop_scale", "train"),
    "trainer": ("precision", "max_epochs", "max_steps", "gradient_clip_val"),
}
LEFT_OUT = ("task.model", "task.recipe", "task.seed", "task.compile", "task.class_names")
SUFFIX = ".hparams"  # of TensorBoard's file of them
Value = bool | int | float | str


class Hyperparameters(Callback):
    """Log the settings of a run, as keys of its configuration, with the metrics it ended with.

    Weights & Biases and MLflow get the settings when a run begins. TensorBoard shows settings only
    together with metrics, so it gets them when the training ends. The metrics are the last value of
    each number of the validation, and ``best/...`` of the number that chooses the best checkpoint.

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
        best, final = _best(trainer), _final(trainer)
        if not trainer.is_global_zero or not final:
            return
        for logger in showing(trainer.loggers):
            if not isinstance(logger, TensorBoardLogger):
                logger.log_metrics(best, trainer.global_step)
            elif isinstance(logger.experiment, SummaryWriter):
                _write(Path(logger.log_dir), self.values, best, final, trainer.global_step)


def hyperparameters(config: Mapping[str, Any]) -> dict[str, Value]:
    """The settings of a configuration that matter for what a model learns.

    Args:
        config: plain values.

    Returns:
        Numbers, switches and texts by the keys of the configuration, the most important first; a
        list is one text, and an object in the task is the name of its class. What is null is left
        out.
    """
    values = {}
    for section in SECTIONS:
        part = config.get(section)
        if isinstance(part, Mapping) and section in OF_SECTION:
            part = {name: part[name] for name in OF_SECTION[section] if name in part}
        values.update(_flat(section, part))
    return {key: values[key] for key in FIRST if key in values} | values


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
    """The last value of each number of the validation."""
    metrics = trainer.callback_metrics
    return {name: float(value) for name, value in metrics.items() if name.startswith("val/")}


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
    folder: Path,
    values: Mapping[str, Value],
    best: Mapping[str, float],
    final: Mapping[str, float],
    step: int,
) -> None:
    """Write TensorBoard's file of hyperparameters, in place of that of an earlier end of the run.

    TensorBoard takes the first settings that it finds in a folder, and the last value of each
    curve. Those of ``final`` are in the folder's other files.
    """
    try:
        for earlier in folder.glob(f"*{SUFFIX}"):
            earlier.unlink()
        with SummaryWriter(str(folder), filename_suffix=SUFFIX) as writer:
            for summary in hparams(dict(values), {**best, **final}):
                writer._get_file_writer().add_summary(summary, step)
            for name, value in best.items():
                writer.add_scalar(name, value, step)
    except OSError as error:
        log.warning(f"{folder}: no hyperparameters for TensorBoard: {error.strerror}")
