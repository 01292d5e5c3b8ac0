"""The metric that the jobs of a sweep are compared by."""

import logging

from lightning import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hiera_video.running.configurations import conf_dir
from hiera_video.running.sweeps import Score
from hiera_video.terminal import did_you_mean

log = logging.getLogger(__name__)


def score_of(trainer: Trainer, config: DictConfig) -> Score | None:
    """The metric that ``config.optimized_metric`` names, or else that of the best checkpoint.

    Where no checkpoint is kept by a metric, it is the one that our configurations keep it by. Its
    value is that of the best checkpoint, if one is kept by this metric; else the last one.
    """
    parts = [part for part in (config.get("callbacks") or {}).values() if part]
    modes = {part.monitor: part.get("mode", "min") for part in parts if part.get("monitor")}
    is_usual = not modes
    modes = modes or _usual(config)
    if config.command == "test":  # of the same name, but of the test split
        modes = {name.replace("val/", "test/", 1): mode for name, mode in modes.items()}
    values = {
        checkpoint.monitor: checkpoint.best_model_score
        for checkpoint in trainer.checkpoint_callbacks
        if isinstance(checkpoint, ModelCheckpoint) and checkpoint.best_model_score is not None
    }
    values = {**trainer.callback_metrics, **values}
    names = [name for name in modes if name in values or not is_usual]
    name = config.optimized_metric or next(iter(names), None)
    if name is None:
        return None
    if name not in values:
        if config.optimized_metric and trainer.is_global_zero:
            hint = did_you_mean(name, values) or f"; there are {', '.join(sorted(values))}"
            log.warning(f"optimized_metric: there is no metric {name!r}{hint}")
        return None
    return Score(name, modes.get(name, "min" if "loss" in name else "max"), float(values[name]))


def _usual(config: DictConfig) -> dict[str, str]:
    """The metrics, and their modes, that our configurations of callbacks keep the best by."""
    modes = {}
    for file in sorted((conf_dir() / "callbacks").glob("*.yaml")):
        best = OmegaConf.select(OmegaConf.load(file), "best")
        if best is None:
            continue
        try:
            best = OmegaConf.merge(config, {"callbacks": {"best": best}}).callbacks.best
            modes[best.monitor] = best.mode
        except OmegaConfBaseException:  # it refers to a key of another task
            continue
    return modes
