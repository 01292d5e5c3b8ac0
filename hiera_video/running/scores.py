"""The metric that the jobs of a sweep are compared by."""

import logging

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig

from hiera_video.running.sweeps import Score
from hiera_video.terminal import did_you_mean

log = logging.getLogger(__name__)


def score_of(trainer: Trainer, config: DictConfig) -> Score | None:
    """The metric that ``config.optimized_metric`` names, or else that of the best checkpoint.

    Its value is that of the best checkpoint, if one is kept by this metric; else the last one.
    """
    parts = [part for part in (config.get("callbacks") or {}).values() if part]
    modes = {part.monitor: part.get("mode", "min") for part in parts if part.get("monitor")}
    if config.command == "test":  # of the same name, but of the test split
        modes = {name.replace("val/", "test/", 1): mode for name, mode in modes.items()}
    name = config.optimized_metric or next(iter(modes), None)
    if name is None:
        return None
    values = {
        checkpoint.monitor: checkpoint.best_model_score
        for checkpoint in trainer.checkpoint_callbacks
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_score is not None
    }
    values = {**trainer.callback_metrics, **values}
    if name not in values:
        if config.optimized_metric and trainer.is_global_zero:
            hint = did_you_mean(name, values) or f"; there are {', '.join(sorted(values))}"
            log.warning(f"optimized_metric: there is no metric {name!r}{hint}")
        return None
    return Score(name, modes.get(name, "min" if "loss" in name else "max"), float(values[name]))
