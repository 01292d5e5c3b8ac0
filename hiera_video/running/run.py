"""One run: from a composed configuration to objects, and through Lightning's trainer."""

import json
import logging
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from lightning.pytorch.callbacks import Checkpoint, WeightAveraging
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from datamodules.files import atomic_file
from hiera_video.callbacks.predictions import PredictionLines
from hiera_video.callbacks.recovery import ContinueEpoch
from hiera_video.callbacks.run_record import RunRecord
from hiera_video.errors import UsageError
from hiera_video.metrics.ava_results import AVAResults
from hiera_video.metrics.results import Results
from hiera_video.results.prediction_files import stamped
from hiera_video.running.choices import (
    check_checkpoint,
    check_model,
    check_values,
    checkpoint_path,
    initial_weights,
)
from hiera_video.running.predict_actions import detects_actions, predict_actions
from hiera_video.weights.trained import Classes, read_classes

log = logging.getLogger(__name__)

# What describes a run; the rest of the configuration is about this one command.
SECTIONS = ("name", "seed", "model", "data", "task", "trainer", "callbacks", "logger")


def run(config: DictConfig) -> float | None:
    """Run ``config.command``.

    Returns:
        The metric that ``config.optimized_metric`` names, for Hydra's sweepers.

    Raises:
        UsageError: the configuration contradicts itself, the machine or the checkpoint.
    """
    check_values(config)
    _quiet_lightning()
    torch.set_float32_matmul_precision("high")
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    path = checkpoint_path(config)
    actions = detects_actions(config)
    if config.out is None:
        config.out = "${run_dir}/" + ("predictions" if actions else "predictions.jsonl")
    record = RunRecord(config.run_dir, *_records(config))
    classes, source = _weights_and_classes(config, path)
    check_model(config)
    if config.command == "predict" and actions:
        predict_actions(config, source, classes)
        return None
    data, task = _data_and_task(config, classes)
    trainer = _trainer(config, record)
    if trainer.is_global_zero:
        log.info(f"{config.command} {config.name} -> {config.run_dir}")
    started = time.perf_counter()
    _call(trainer, config.command, task, data, path)
    if trainer.is_global_zero:
        _report(trainer, config, getattr(task, "results", None), time.perf_counter() - started)
        if config.command == "predict":
            _check_answers(trainer)
    metric = trainer.callback_metrics.get(config.optimized_metric)
    return None if metric is None else float(metric)


def _weights_and_classes(config: DictConfig, path: Path | None) -> tuple[Classes, str]:
    """Check and note the weights of a run; returns their classes, and what they are."""
    if path is not None:
        classes = check_checkpoint(config, path)
        config.task.init_from = None  # the checkpoint has all weights
        config.ckpt_path = str(path)
        return classes, str(path)
    if config.task.init_from is None:
        return Classes(), ""
    config.task.init_from = source = initial_weights(config.task.init_from)
    evaluates = config.command != "fit" and Path(source).is_file()
    return read_classes(Path(source)) if evaluates else Classes(), source


def _data_and_task(config: DictConfig, classes: Classes) -> tuple[Any, Any]:
    data = instantiate(config.data, _convert_="all")
    task = instantiate(config.task, _convert_="all")
    if classes.names and hasattr(task, "class_names"):
        task.class_names = classes.names
        if hasattr(task, "action_ids"):  # the data has a label map of its own, which must agree
            task.action_ids = classes.ids
        else:
            data.class_names = classes.names
    if config.command == "predict" and config.trainer.devices == "auto":
        data.setup("predict")
        videos = len(data.manifests["predict"])
        config.trainer.devices = min(videos, max(1, torch.cuda.device_count()))
    return data, task


def _records(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration with its references, to run again; and as values, for checkpoints."""
    place = "<run_dir>"  # stays a reference in both: another run has a folder of its own
    values = OmegaConf.merge(config, {"run_dir": place})
    text = json.dumps(OmegaConf.to_container(values, resolve=True)).replace(place, "${run_dir}")
    resolved = json.loads(text)
    references: Any = OmegaConf.to_container(config, resolve=False)
    return {k: references[k] for k in SECTIONS}, {k: resolved[k] for k in SECTIONS}


def _check_answers(trainer: lightning.Trainer) -> None:
    lines = (c for c in trainer.callbacks if isinstance(c, PredictionLines))  # pyright: ignore
    if trainer.world_size == 1 and not any(c.answered for c in lines):
        raise UsageError("none of the videos can be decoded", 1)


def _trainer(config: DictConfig, record: RunRecord) -> lightning.Trainer:
    fitting = config.command == "fit"
    callbacks = [c for c in instantiate(config.callbacks, _convert_="all").values() if c]
    training_only = (Checkpoint, WeightAveraging)
    # Evaluation writes its numbers itself; metrics over time and checkpoints are for training.
    loggers = [logger for logger in instantiate(config.logger, _convert_="all").values() if logger]
    pictures_only = () if config.command != "test" else (TensorBoardLogger,)
    trainer = instantiate(
        config.trainer,
        _convert_="all",
        callbacks=[
            *(record, ContinueEpoch()),
            *(c for c in callbacks if fitting or not isinstance(c, training_only)),
        ],
        enable_checkpointing=fitting,
        logger=[lg for lg in loggers if fitting or isinstance(lg, pictures_only)],
    )
    precision, device = str(config.trainer.precision), trainer.strategy.root_device.type
    if precision.startswith("16") and device == "cpu":
        raise UsageError(
            f"trainer.precision={precision} needs a GPU; on a CPU use bf16-mixed or 32-true"
        )
    return trainer


def _call(
    trainer: lightning.Trainer, command: str, task: Any, data: Any, path: Path | None
) -> None:
    arguments: dict[str, Any] = {"datamodule": data, "ckpt_path": path, "weights_only": True}
    if command in ("validate", "test"):
        arguments["verbose"] = False
    elif command == "predict":
        arguments["return_predictions"] = False
    try:
        getattr(trainer, command)(task, **arguments)
    except SIGTERMException:
        sys.exit(143)  # Lightning would end with 0, and a scheduler would take it for done


def _report(
    trainer: lightning.Trainer,
    config: DictConfig,
    results: Results | AVAResults | None,
    seconds: float,
) -> None:
    """Say what came out and where it lies; keep the numbers of an evaluation."""
    metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
    if config.command in ("validate", "test"):
        numbers = metrics if results is None else results.summary()
        numbers = {**numbers, "weights": stamped(config.ckpt_path or config.task.init_from)}
        with atomic_file(Path(config.run_dir, "results.json")) as temporary:
            temporary.write_text(json.dumps(numbers, indent=2, ensure_ascii=False) + "\n")
    if results is not None:
        log.info(results.describe())
    shown = "  ".join(
        f"{name} {value:.2%}" if "top" in name else f"{name} {value:.4f}"
        for name, value in metrics.items()
        if not name.startswith("train/grad")
    )
    log.info(f"{config.command} {config.name} took {seconds:.0f} s  {shown}")
    log.info(f"results in {config.out if config.command == 'predict' else config.run_dir}")


def _quiet_lightning() -> None:
    """Leave Lightning's warnings, in our log; drop its handler (each line twice) and its tips."""
    logging.getLogger("lightning").handlers.clear()
    for name in ("lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.WARNING)
    # Nothing a user could do anything about: Lightning 2.6 with torch >= 2.13; a hook that the
    # data module does not have; the callbacks that wrote a checkpoint but need not evaluate it.
    for message in (
        ".*LeafSpec.* is deprecated",
        "You have overridden `on_before_batch_transfer`",
        "Be aware that when using `ckpt_path`, callbacks",
    ):
        warnings.filterwarnings("ignore", message=message)
