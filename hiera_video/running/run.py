"""One run: from a composed configuration to objects, and through Lightning's trainer."""

import json
import logging
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

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
from hiera_video.metrics.ava_results import AVAResults
from hiera_video.metrics.results import Results
from hiera_video.models.names import CHECKPOINTS
from hiera_video.results.prediction_files import stamped
from hiera_video.running.hydra_app import PREDICTIONS, newest_training
from hiera_video.running.predict_actions import detects_actions, predict_actions
from hiera_video.running.usage_errors import constructor_error
from hiera_video.running.words import UsageError
from hiera_video.spelling import did_you_mean
from hiera_video.weights.files import checked_values, find_weights, read_checkpoint
from hiera_video.weights.trained import read_classes

log = logging.getLogger(__name__)

# Arguments of a model that may differ from those of its checkpoint: they make the same weights.
TRAINING_ONLY = {"drop_path_rate", "head_dropout", "head_init_scale", "grad_checkpointing"}
# What describes a run; the rest of the configuration is about this one command.
SECTIONS = ("name", "seed", "model", "data", "task", "trainer", "callbacks", "logger")


class Classes(NamedTuple):
    """What a checkpoint says of the outputs of its network; ids are those of actions."""

    names: tuple[str, ...] = ()
    ids: tuple[int, ...] = ()

    @classmethod
    def of(cls, checkpoint: Mapping[str, Any]) -> "Classes":
        """Those of a checkpoint; none of a pretraining's."""
        return cls(*(tuple(checkpoint.get(key, ())) for key in ("class_names", "action_ids")))


def run(config: DictConfig) -> float | None:
    """Run ``config.command``.

    Returns:
        The metric that ``config.optimized_metric`` names, for Hydra's sweepers.

    Raises:
        UsageError: the configuration contradicts itself, the machine or the checkpoint.
    """
    _check_values(config)
    _quiet_lightning()
    torch.set_float32_matmul_precision("high")
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    path = checkpoint_path(config)
    record = RunRecord(config.run_dir, *_records(config))
    classes, source = Classes(), config.task.init_from
    if path is not None:
        classes = _check_checkpoint(config, path)
        config.task.init_from = None  # the checkpoint has all weights
        config.ckpt_path = str(path)
    elif source is not None:
        config.task.init_from = source = _weights(source)
        if config.command != "fit" and Path(source).is_file():
            classes = Classes.of(read_classes(Path(source)))
    _check_model(config)
    if config.command == "predict" and detects_actions(config):
        predict_actions(config, str(path or source), *classes)
        return None
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


def _records(config: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The configuration with its references, to run again; and as values, for checkpoints."""
    place = "<run_dir>"  # stays a reference in both: another run has a folder of its own
    values = OmegaConf.merge(config, {"run_dir": place})
    text = json.dumps(OmegaConf.to_container(values, resolve=True)).replace(place, "${run_dir}")
    resolved = json.loads(text)
    references: Any = OmegaConf.to_container(config, resolve=False)
    return {k: references[k] for k in SECTIONS}, {k: resolved[k] for k in SECTIONS}


def checkpoint_path(config: DictConfig) -> Path | None:
    """The checkpoint to continue or to evaluate; None to begin.

    Raises:
        UsageError: none is given where one is needed, or it does not exist.
    """
    if config.command == "fit":
        last = Path(config.run_dir, "checkpoints", "last.ckpt")
        if config.resume == "auto" and not last.exists():
            log.info("resume=auto: no earlier run, so this one begins")
            return None
        if config.resume is None and last.exists():
            raise UsageError(f"{last} is of an earlier run; resume=auto, or another run_dir=")
        given = {None: None, "auto": last}.get(config.resume, config.resume)
    else:
        _check_unfinished(config)
        given = config.ckpt_path
        if given == "auto":
            given = newest_training(config.name)
        if given is None and not config.task.init_from:
            raise UsageError(
                f"{config.command} needs weights: ckpt_path=FILE_OR_RUN_FOLDER, ckpt_path=auto for "
                f"the newest run of {config.name}, or task.init_from=WEIGHTS"
            )
    if given is None:
        return None
    path = Path(given)
    if path.is_dir():
        best = path / "checkpoints" / "best.ckpt"
        to_use = config.command != "fit" and best.exists()
        path = best if to_use else path / "checkpoints" / "last.ckpt"
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint")
    return path


def _check_unfinished(config: DictConfig) -> None:
    """See that an evaluation overwrites nothing, and goes on after another one only if asked to."""
    if config.command == "predict":
        return
    if Path(config.run_dir, "results.json").exists():
        raise UsageError(f"{config.run_dir} holds results already; set another run_dir=")
    if config.resume not in (None, "auto") and not Path(config.resume).is_dir():
        raise UsageError(f"resume={config.resume}: no such folder of a test")
    begun = any(Path(config.run_dir).glob(PREDICTIONS))
    if begun and config.resume is None:
        raise UsageError(
            f"{config.run_dir} holds a test that was cut off; resume={config.run_dir} goes on, or "
            "set another run_dir="
        )
    if config.resume is not None and not begun and config.command == "test":
        log.info(f"resume={config.resume}: no test was cut off, so this one begins")


def _check_values(config: DictConfig) -> None:
    """See what neither a type nor a constructor of ours sees."""
    for name in ("model", "data", "task", "trainer"):
        if "_target_" not in (config.get(name) or {}):
            raise UsageError(f"the configuration has no {name}, or one without _target_")
    if not isinstance(config.seed, int) or not 0 <= config.seed < 2**32:
        raise UsageError(f"seed={config.seed}: expected a whole number from 0 on")
    for name in ("max_epochs", "max_steps", "accumulate_grad_batches", "log_every_n_steps"):
        if isinstance(config.trainer.get(name), float):
            raise UsageError(f"trainer.{name}={config.trainer[name]}: expected a whole number")


def _weights(source: str) -> str:
    """Weights to start from: a published name, or the file that `find_weights` finds.

    Raises:
        UsageError: there are none; found before the data is read.
    """
    path = find_weights(source)
    if path.is_file():
        return str(path)
    if source not in CHECKPOINTS:
        hint = did_you_mean(source, CHECKPOINTS)
        raise UsageError(f"task.init_from={source}: no such file or published weights{hint}")
    return source


def _check_answers(trainer: lightning.Trainer) -> None:
    lines = (c for c in trainer.callbacks if isinstance(c, PredictionLines))  # pyright: ignore
    if trainer.world_size == 1 and not any(c.answered for c in lines):
        raise UsageError("none of the videos can be decoded", 1)


def _check_model(config: DictConfig) -> None:
    """Build the model without memory, so that a wrong argument is found before data is prepared."""
    try:
        with torch.device("meta"):
            model = instantiate(config.model, _convert_="all")()
        if "mask_ratio" in config.task:
            model.num_kept(config.task.mask_ratio, config.task.mask)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise UsageError(f"model: {constructor_error(str(error))}") from error
    size = config.data.size
    if isinstance(size, int) or len(size) != 2:
        raise UsageError(f"data.size={size}: expected [height, width]")
    padded = config.data.get("eval_pad")
    if padded and config.command == "fit" and list(padded) != list(size):
        raise UsageError(
            f"data.eval_pad={list(padded)} is for test, with model.input_size and task.init_from; "
            "in training the model takes data.size"
        )
    clip = (config.data.num_frames, *(padded or size))
    if tuple(model.input_size) != clip:
        raise UsageError(
            f"the model takes {list(model.input_size)} and the data gives {list(clip)} (frames, "
            "height, width); set model.input_size, or data.num_frames and data.size"
        )


def _check_checkpoint(config: DictConfig, path: Path) -> Classes:
    """See that the checkpoint is of this model; returns its classes, if it has any."""
    checkpoint = read_checkpoint(path)
    if "pytorch-lightning_version" not in checkpoint:
        raise UsageError(f"{path} holds weights, not a run; use task.init_from={path}")
    weights = checkpoint.get("state_dict", {})
    try:
        checked_values({name: w for name, w in weights.items() if w.is_floating_point()})
    except ValueError as error:
        raise UsageError(f"{path}: {error}") from error
    classes = Classes.of(checkpoint)
    saved = checkpoint.get("config", {}).get("model")
    model = OmegaConf.to_container(config.model, resolve=True)
    if saved is None or saved == model:
        return classes
    assert isinstance(model, dict)
    keys = sorted(key for key in saved | model if saved.get(key) != model.get(key))
    if TRAINING_ONLY.issuperset(keys):
        return classes
    raise UsageError(
        f"{path} has another model ("
        + ", ".join(f"model.{key}={saved.get(key)}, not {model.get(key)}" for key in keys)
        + "); use its configuration, or start from its weights with task.init_from"
    )


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
