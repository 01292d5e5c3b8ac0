"""One run: build the objects of a composed configuration and call Lightning's trainer."""

import contextlib
import json
import logging
import shlex
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import lightning
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig, OmegaConf

from datamodules.files import write_json
from datamodules.processes import in_first_process
from hiera_video.callbacks.predictions import PredictionLines
from hiera_video.callbacks.progress import listed
from hiera_video.callbacks.recovery import SaveOnSigterm
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
from hiera_video.running.compose import SECTIONS
from hiera_video.running.folders import locked, refuse_earlier_run
from hiera_video.running.making import made
from hiera_video.running.one_device import given_root
from hiera_video.running.predict_actions import detects_actions, predict_actions
from hiera_video.running.predict_along import predict_classes_along
from hiera_video.running.predict_instances import finds_objects, predict_objects
from hiera_video.running.predict_live import live_sources, predict_live
from hiera_video.running.processes import (
    check_accelerator,
    check_processes,
    check_strategy_name,
    devices_to_predict,
    queue_again,
)
from hiera_video.running.quoting import escaped, escaped_texts
from hiera_video.running.recorded import moved_root_named
from hiera_video.running.resuming import check_resumed, is_finished, where
from hiera_video.running.saving import WholeCheckpoints
from hiera_video.running.scores import score_of
from hiera_video.running.sweeps import Score
from hiera_video.running.trainer import create_trainer, quiet_lightning
from hiera_video.tasks.lightning_private import Position, position_of
from hiera_video.weights.trained import Classes, classes_of, read_classes

log = logging.getLogger(__name__)


def run(config: DictConfig) -> Score | None:
    """Run ``config.command``: one of fit, validate, test and predict.

    Returns:
        The metric that the jobs of a sweep are compared by; None if there is none.

    Raises:
        UserError: the configuration contradicts itself, the machine or the checkpoint, or the work
            failed.
    """
    # Everything that can be checked without data is checked first.
    check_values(config)
    check_accelerator(config)
    check_strategy_name(config)
    quiet_lightning()
    torch.set_float32_matmul_precision("high")
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    checkpoint = checkpoint_path(config)
    predict = _prediction_without_trainer(config)
    if config.out is None:
        folder = predict in (predict_actions, predict_classes_along, predict_objects)
        config.out = "${run_dir}/" + ("predictions" if folder else "predictions.jsonl")
    record = RunRecord(config.run_dir, *_records(config))  # of the configuration as it was given
    start = _start(config, checkpoint)
    if start.position and is_finished(config, start.position, Path(start.weights)):
        return None
    check_model(config)
    if predict is not None:
        predict(config, start.weights, start.classes)
        return None

    data, task = _data_and_task(config, start.classes)
    trainer = create_trainer(config, record)
    check_processes(trainer)
    if trainer.is_global_zero:
        log.info(f"{config.command} {config.name} -> {config.run_dir}")
        if start.position:
            log.info(f"going on from {start.checkpoint}: {where(start.position)}")
    started = time.perf_counter()
    writes = config.command == "fit" and trainer.is_global_zero
    with locked(Path(config.run_dir)) if writes else contextlib.nullcontext():
        if writes and start.checkpoint is None:  # another run may have come in between
            refuse_earlier_run(Path(config.run_dir))
        with moved_root_named(config, start.checkpoint):
            _call(trainer, config.command, task, data, start.checkpoint)
    _check_saved(trainer)
    if trainer.is_global_zero:
        _report(trainer, config, getattr(task, "results", None), time.perf_counter() - started)
    if config.command == "predict":
        _check_predictions(trainer)
    return score_of(trainer, config)


def _prediction_without_trainer(
    config: DictConfig,
) -> Callable[[DictConfig, str, Classes], None] | None:
    """What writes the predictions on one device; None for other commands, and a class a video."""
    if config.command != "predict":
        return None
    if live_sources(config):
        return predict_live
    if detects_actions(config):
        return predict_actions
    if finds_objects(config):
        return predict_objects
    return predict_classes_along if config.stride is not None else None


class _Start(NamedTuple):
    """What a run starts from.

    Attributes:
        weights: the file or published name of the weights, "" for random ones.
        classes: those that the weights name.
        checkpoint: of a run, to go on from or to evaluate; None if there are only weights.
        position: where a training goes on; None for a new one, or an evaluation.
    """

    weights: str
    classes: Classes = Classes()
    checkpoint: Path | None = None
    position: Position | None = None


def _start(config: DictConfig, checkpoint: Path | None) -> _Start:
    """Check the weights of a run and note them in its configuration."""
    fits = config.command == "fit"
    if checkpoint is None:
        if config.task.init_from is None:
            return _Start("")
        weights = initial_weights(config.task.init_from)
        config.task.init_from = escaped(weights)
        known = not fits and Path(weights).is_file()
        return _Start(weights, read_classes(Path(weights)) if known else Classes())
    if fits:
        checkpoint, content = check_resumed(config, checkpoint)
    else:
        content = check_checkpoint(config, checkpoint)
    config.task.init_from = None  # the checkpoint has all weights
    config.ckpt_path = escaped(str(checkpoint))
    position = position_of(content) if fits else None
    return _Start(str(checkpoint), classes_of(content), checkpoint, position)


def _data_and_task(config: DictConfig, classes: Classes) -> tuple[Any, Any]:
    """The data module and the task, both with the classes of the weights."""
    data = made(config, "data")
    data.predict_root = given_root(config)
    task = made(config, "task")
    if classes.names and hasattr(task, "class_names"):
        task.class_names = classes.names
        if hasattr(task, "action_ids"):  # the data has a label map of its own, which must agree
            task.action_ids = classes.ids
        else:
            data.class_names = classes.names
    if config.command == "predict" and config.trainer.devices == "auto":
        data.setup("predict")
        videos = len(data.manifests["predict"])
        config.trainer.devices = devices_to_predict(config.trainer.accelerator, videos)
    return data, task


def _records(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The sections that describe a run: with references, to run again; resolved, for checkpoints.

    Both keep references to ``run_dir``, as another run has a folder of its own.
    """
    placeholder = "<run_dir>"
    values = OmegaConf.merge(config, {"run_dir": placeholder})
    text = json.dumps(escaped_texts(OmegaConf.to_container(values, resolve=True)))
    resolved = json.loads(text.replace(placeholder, "${run_dir}"))
    references: Any = OmegaConf.to_container(config, resolve=False)
    sections = [name for name in SECTIONS if name in resolved]
    return {k: references[k] for k in sections}, {k: resolved[k] for k in sections}


def _call(
    trainer: lightning.Trainer, command: str, task: Any, data: Any, checkpoint: Path | None
) -> None:
    arguments: dict[str, Any] = {
        "datamodule": data,
        "ckpt_path": checkpoint,
        "weights_only": True,
    }
    if command in ("validate", "test"):
        arguments["verbose"] = False
    elif command == "predict":
        arguments["return_predictions"] = False
    try:
        getattr(trainer, command)(task, **arguments)
    except SIGTERMException:
        savers = [c for c in trainer.callbacks if isinstance(c, SaveOnSigterm)]  # pyright: ignore
        if savers and command == "fit":
            _check_saved(trainer)
            savers[0].restore_handlers()
            log.info(
                f"stopped and saved after step {trainer.global_step}; to go on: "
                f"hiera-video fit {shlex.quote(f'resume={trainer.default_root_dir}')}"
            )
            try:
                if trainer.is_global_zero:
                    queue_again(savers[0].received)
            finally:
                # SLURM may end all processes when the first one ends.
                trainer.strategy.barrier("the job is queued again")
        # Lightning would exit with 0, and a scheduler would think it was done.
        received = savers[0].received if savers else 0  # by this process
        sys.exit(128 + (received or signal.SIGTERM))
    except SystemExit as stop:
        if isinstance(stop.__context__, KeyboardInterrupt):  # Lightning exits without a word
            raise KeyboardInterrupt from None
        raise


def _check_saved(trainer: lightning.Trainer) -> None:
    """Raise a UsageError, in all processes, if the last save of a checkpoint has failed."""
    if isinstance(saving := trainer.strategy.checkpoint_io, WholeCheckpoints):
        in_first_process(trainer, saving.check_saved)  # which is the one that saves


def _report(
    trainer: lightning.Trainer,
    config: DictConfig,
    results: Results | AVAResults | None,
    seconds: float,
) -> None:
    """Write ``results.json`` of an evaluation; log the metrics and where the results are."""
    metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items())}
    if config.command in ("validate", "test"):
        numbers = metrics if results is None else results.summary()
        if config.command == "validate":  # by which `report` tells it from a test
            numbers = {**numbers, "command": config.command}
        numbers = {**numbers, "weights": stamped(config.ckpt_path or config.task.init_from)}
        write_json(Path(config.run_dir, "results.json"), numbers)
    if results is not None:
        log.info(results.describe())
    shown = listed({k: v for k, v in metrics.items() if not k.startswith("train/grad")})
    log.info(f"{config.command} {config.name} took {seconds:.0f} s  {shown}".rstrip())
    log.info(f"results in {config.out if config.command == 'predict' else config.run_dir}")


def _check_predictions(trainer: lightning.Trainer) -> None:
    """Raise a UsageError if no video could be decoded."""
    writers = (c for c in trainer.callbacks if isinstance(c, PredictionLines))  # pyright: ignore
    if not any(writer.answered for writer in writers):
        raise UsageError("none of the videos can be decoded", 1)
