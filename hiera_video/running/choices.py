"""Check a configuration against itself, the disk and the checkpoint, before any data is read."""

import logging
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from datamodules.video.live_source import is_live
from hiera_video.errors import UsageError
from hiera_video.models.names import CHECKPOINTS, MODELS
from hiera_video.models.network_input import takes_images
from hiera_video.running.folders import (
    LAST,
    PREDICTIONS,
    checkpoint_of,
    newest_training,
    refuse_earlier_run,
)
from hiera_video.running.kinds import check_kinds
from hiera_video.running.overrides import parameters
from hiera_video.running.predict_actions import detects_actions
from hiera_video.running.predict_along import names_classes
from hiera_video.running.predict_instances import finds_objects
from hiera_video.running.settings import WITHOUT_EFFECT
from hiera_video.running.sweeps import best_job, is_sweep, newest_sweep
from hiera_video.running.usage_errors import constructor_error
from hiera_video.terminal import did_you_mean
from hiera_video.weights.description import CUSTOM
from hiera_video.weights.earlier_runs import kind_made_by
from hiera_video.weights.files import check_finite, find_weights, read_checkpoint
from hiera_video.weights.portable import CREATE
from hiera_video.weights.trained import describe_checkpoint

log = logging.getLogger(__name__)

# Arguments of a model that may differ from those of its checkpoint: the weights are the same.
TRAINING_ONLY = {"drop_path_rate", "head_dropout", "head_init_scale", "grad_checkpointing"}
# Settings of the trainer that Lightning takes as they are.
ABOVE_0 = ("accumulate_grad_batches", "check_val_every_n_epoch", "val_check_interval")
FROM_0 = ("log_every_n_steps", "gradient_clip_val")
NOT_COMPARED = {*TRAINING_ONLY, "_partial_", "num_classes"}  # num_classes follows from the data


def check_values(config: DictConfig) -> None:
    """Check the values that no constructor of ours checks, and their kinds.

    Raises:
        UsageError: a section is missing, a value is of another kind than its key, or a key has no
            effect.
    """
    for name in ("model", "data", "task", "trainer"):
        if "_target_" not in (config.get(name) or {}):
            raise UsageError(f"the configuration has no {name}, or one without _target_")
    if not isinstance(config.seed, int) or not 0 <= config.seed < 2**32:
        raise UsageError(f"seed={config.seed}: expected a whole number from 0 on")
    for name in ("max_epochs", "max_steps", "accumulate_grad_batches", "log_every_n_steps"):
        if isinstance(config.trainer.get(name), float):
            raise UsageError(f"trainer.{name}={config.trainer[name]}: expected a whole number")
    if config.command == "fit":  # runs of earlier versions may have such values
        _check_training(config)
    for section, keys in WITHOUT_EFFECT.items():
        values = OmegaConf.select(config, section) or {}
        for key, instead in keys.items():
            if key in values:
                raise UsageError(f"{section}.{key} has no effect; {instead}")
    # Not in `WITHOUT_EFFECT`: runs of earlier versions may have it, which still are to be tested.
    if config.command == "fit" and config.resume is None and "num_classes" in config.model:
        raise UsageError("model.num_classes has no effect; leave it out: the data have the classes")
    if config.boxes is not None and not (config.command == "predict" and detects_actions(config)):
        raise UsageError(f"boxes={config.boxes} is for `predict` of action detection; leave it out")
    _check_stride(config)
    for key in ("min_score", "min_action_score", "persons.min_score"):
        if not isinstance(value := OmegaConf.select(config, key), int | float):
            raise UsageError(f"{key}={value}: expected a number in [0, 1]")
    values: Any = OmegaConf.to_container(config, resolve=False)
    check_kinds(values)


def _check_training(config: DictConfig) -> None:
    """Check what Lightning takes as it is, or replaces by another value."""
    trainer = config.trainer
    for name in ABOVE_0:
        value = trainer.get(name)
        if isinstance(value, int | float) and not value > 0:
            raise UsageError(f"trainer.{name}={value}: expected a number above 0")
    for name in FROM_0:
        value = trainer.get(name)
        if isinstance(value, int | float) and not value >= 0:
            raise UsageError(f"trainer.{name}={value}: expected a number from 0 on")
    if trainer.get("log_every_n_steps", 50) is None:
        raise UsageError("trainer.log_every_n_steps=null: expected a number; 0 logs no step")
    if trainer.get("overfit_batches"):
        raise UsageError(
            "trainer.overfit_batches: the loaders shuffle each epoch, so it would not repeat the "
            "same batches; train on a small data set, or set trainer.limit_train_batches"
        )
    endless = trainer.get("max_steps", -1) == -1 and trainer.get("max_epochs", 1) is None
    if endless and "lr" in config.task:  # Lightning would train 1,000 epochs
        raise UsageError(
            "trainer.max_epochs=null: set a number of epochs, or trainer.max_steps, too"
        )


def _check_stride(config: DictConfig) -> None:
    """Check ``stride`` and ``along``."""
    live = any(is_live(str(source)) for source in config.data.get("predict") or ())
    answers = names_classes(config) or finds_objects(config) or (live and detects_actions(config))
    if config.stride is not None and not (config.command == "predict" and answers):
        raise UsageError(
            f"stride={config.stride} is for `predict` of classification or instance segmentation, "
            "or live; leave it out"
        )
    for key in ("stride", "along.window"):
        value = OmegaConf.select(config, key)
        if value is not None and not isinstance(value, int | float):
            raise UsageError(f"{key}={value}: expected a number of seconds")
    for key in ("spatial", "top"):
        if not isinstance(config.along[key], int):
            raise UsageError(f"along.{key}={config.along[key]}: expected a whole number")


def checkpoint_path(config: DictConfig) -> Path | None:
    """The checkpoint to resume or to evaluate; None for a new training or for ``task.init_from``.

    Raises:
        UsageError: the checkpoint does not exist, an evaluation has no weights, or the run folder
            holds another run.
    """
    if config.command == "fit":
        last = Path(config.run_dir, "checkpoints", LAST)
        if config.resume == "auto" and any(last.parent.glob("*.ckpt")):
            return last  # or what is whole in its place
        if config.resume == "auto":
            log.info("resume=auto: there is no earlier run, so a new one starts")
            return None
        if config.resume is None:
            refuse_earlier_run(Path(config.run_dir))
        source = config.resume
    else:
        _check_unfinished(config)
        source = config.ckpt_path
        if source == "auto":
            source = newest_sweep(config.name) or newest_training(config.name)
        if source is None and not config.task.init_from:
            raise UsageError(
                f"{config.command} needs weights: ckpt_path=FILE_OR_RUN_FOLDER, ckpt_path=auto for "
                f"the newest run or sweep of {config.name}, or task.init_from=WEIGHTS"
            )
        if source is not None and is_sweep(Path(source)):
            source, why = best_job(Path(source))
            log.info(f"{source}: {why}")
    return source and checkpoint_of(Path(source), newest=config.command == "fit")


def _check_unfinished(config: DictConfig) -> None:
    """Refuse to overwrite results, or to continue another evaluation without being asked to."""
    if config.command == "predict":
        return
    if Path(config.run_dir, "results.json").exists():
        raise UsageError(f"{config.run_dir} holds results already; set another run_dir=")
    if config.resume not in (None, "auto") and not Path(config.resume).is_dir():
        raise UsageError(f"resume={config.resume}: no such folder of a test")
    begun = any(Path(config.run_dir).glob(PREDICTIONS))
    if begun and config.resume is None:
        raise UsageError(
            f"{config.run_dir} holds a test that was cut off; continue it with "
            f"resume={config.run_dir}, or set another run_dir="
        )
    if config.resume is not None and not begun and config.command == "test":
        log.info(f"resume={config.resume}: no test was cut off, so a new one starts")


def initial_weights(source: str) -> str:
    """The weights to start from: a published name, or the file that `find_weights` finds.

    Raises:
        UsageError: there are no such weights.
    """
    path = find_weights(source)
    if path.is_file():
        return str(path)
    if source not in CHECKPOINTS:
        hint = did_you_mean(source, CHECKPOINTS)
        raise UsageError(f"task.init_from={source}: no such file or published weights{hint}")
    return source


def check_model(config: DictConfig) -> None:
    """Build the model without memory, to find wrong arguments before the data is prepared.

    Raises:
        UsageError: the model cannot be built, or its input is not what the data gives.
    """
    try:
        with torch.device("meta"):
            model = instantiate(config.model, _convert_="all")()
        if "mask_ratio" in config.task and hasattr(model, "num_kept"):
            model.num_kept(config.task.mask_ratio, config.task.mask)
    except (TypeError, ValueError, ZeroDivisionError, RuntimeError) as error:
        reason = constructor_error(str(error), config.model._target_)
        raise UsageError(f"model: {reason}") from error
    size, padded = config.data.size, config.data.get("eval_pad")
    for key, pair in {"size": size, "eval_pad": padded or size}.items():
        if isinstance(pair, float | int) or len(pair) != 2:
            raise UsageError(f"data.{key}={pair}: expected [height, width]")
    if padded and config.command == "fit" and list(padded) != list(size):
        raise UsageError(
            f"data.eval_pad={list(padded)} is for test, with model.input_size and task.init_from; "
            "in training the model takes data.size"
        )
    if getattr(model, "any_size", False):
        return
    clip = (config.data.num_frames, *(padded or size))
    images = takes_images(model) and clip[0] == 1
    if tuple(getattr(model, "input_size", clip)) != (clip[1:] if images else clip):
        raise UsageError(
            f"the model takes {list(model.input_size)} and the data gives {list(clip)} (frames, "
            "height, width); set model.input_size, or data.num_frames and data.size"
        )


def check_checkpoint(config: DictConfig, path: Path) -> dict[str, Any]:
    """Check that a checkpoint is of the configured model; returns what it holds.

    Raises:
        CheckpointError: the checkpoint cannot be read, or has values that are not finite.
        UsageError: it is of another model.
    """
    checkpoint = read_checkpoint(path)
    if "pytorch-lightning_version" not in checkpoint:
        raise UsageError(f"{path} holds weights, not a run; use task.init_from={path}")
    check_finite(checkpoint, path)
    _check_same_model(config, checkpoint, path)
    return checkpoint


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Arguments as configurations hold them: lists in place of tuples."""
    return {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}


def _check_same_model(config: DictConfig, checkpoint: dict[str, Any], path: Path) -> None:
    """Refuse a checkpoint whose model has other arguments; only models of ours are compared."""
    section: Any = OmegaConf.to_container(config.model, resolve=True)
    kind = kind_made_by(section.pop("_target_"))
    if kind is None or (description := describe_checkpoint(checkpoint, path)).kind == CUSTOM:
        return
    configured = {"kind": kind, **section}
    saved = {"kind": description.kind, "name": description.name, **description.arguments}
    # An argument that is not given has its default.
    taken = parameters(CREATE[kind]).values()
    defaults = {p.name: p.default for p in taken if p.default is not p.empty}
    defaults |= MODELS.get(description.name, {})
    configured, saved = ({**_plain(defaults), **given} for given in (configured, saved))
    keys = sorted(key for key in saved | configured if saved.get(key) != configured.get(key))
    if keys := [key for key in keys if key not in NOT_COMPARED]:
        differences = (f"model.{k}={saved.get(k)}, not {configured.get(k)}" for k in keys)
        raise UsageError(
            f"{path} has another model ({', '.join(differences)}); use its configuration, or start "
            "from its weights with task.init_from"
        )
