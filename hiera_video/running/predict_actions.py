"""``predict`` of action detection: from a configuration to what `predict_files` takes."""

import logging
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from omegaconf import DictConfig

from datamodules.clips.videos import ClipFormat
from datamodules.manifests.splits import list_split, list_videos
from hiera_video.errors import UsageError
from hiera_video.predicting.action_files import check_request, predict_files
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.persons import PersonSource, person_source
from hiera_video.tasks.detection import DetectionTask, refuse_true_half
from hiera_video.weights.load import load_weights
from hiera_video.weights.trained import Classes

log = logging.getLogger(__name__)


def detects_actions(config: DictConfig) -> bool:
    """Whether the configuration's task is to detect actions."""
    return issubclass(get_class(config.task._target_), DetectionTask)


def predict_actions(config: DictConfig, weights: str, classes: Classes) -> None:
    """Write what persons do in the videos of ``data.predict`` into the folder ``out``.

    It runs on one device.

    Args:
        config: the whole configuration.
        weights: a checkpoint, an export's file of weights, or a published name.
        classes: the actions that ``weights`` names; without ids they are 1, 2, 3, ...

    Raises:
        UsageError: the configuration is wrong, ``weights`` has no actions, or no video could be
            used.
        MisconfigurationException: ``trainer.precision`` would round boxes.
    """
    if not classes.names:
        raise UsageError(f"{weights} names no actions; give a run of action detection")
    precision = str(config.trainer.precision)
    refuse_true_half(precision)
    listed = list_videos(
        config.data.get("predict", ()), lambda file: list_split(file, Path(), None)
    )
    videos, out = [listed.path(i) for i in range(len(listed))], Path(config.out)
    try:
        check_request(videos, out, config.min_action_score)
    except ValueError as error:
        raise UsageError(str(error)) from error
    predictor = _predictor(config, weights, classes, precision)
    persons = _persons(config, predictor.device)
    log.info(f"predict {config.name} -> {out}")
    done = predict_files(predictor, persons, videos, out, config.min_action_score)
    if not done:
        raise UsageError("none of the videos could be used", 1)
    log.info(f"{len(done)} of {len(videos)} videos, results in {out}")


def _predictor(
    config: DictConfig, weights: str, classes: Classes, precision: str
) -> ActionPredictor:
    """The configured model, which may have another input size than that of the weights."""
    data, task = config.data, instantiate(config.task, _convert_="all")
    network: Any = task.create_network(num_classes=len(classes.names))
    report = load_weights(network, weights, quiet=True)
    if report.missing:
        raise UsageError(f"{weights} lacks {report.missing[0]}; fine-tune from it first")
    device = _device(str(config.trainer.accelerator))
    if precision.startswith("16") and device.type == "cpu":
        raise UsageError(f"trainer.precision={precision} needs a GPU; on a CPU use bf16-mixed")
    try:
        return ActionPredictor(
            network,
            classes.names,
            ClipFormat(data.num_frames, data.stride, data.fps, *data.size),
            classes.ids,
            task.normalize,
            times_person_score=task.person_score,
            short_side=data.get("eval_short_side"),
            pad=data.get("eval_pad") and tuple(data.eval_pad),
            device=device,
            precision=FULL_NAMES.get(precision, precision),
        )
    except ValueError as error:
        raise UsageError(f"trainer.precision: {error}") from error


# Lightning's short names of precisions.
FULL_NAMES = {"32": "32-true", "16": "16-mixed", "bf16": "bf16-mixed"}


def _device(accelerator: str) -> torch.device:
    """The device that ``trainer.accelerator`` stands for: the first of its kind."""
    gpus = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    present = [name for name, available in gpus.items() if available]
    wanted = {"auto": [*present, "cpu"], "gpu": present, "cpu": ["cpu"]}
    wanted |= {name: [name] for name in present}
    if not wanted.get(accelerator):
        raise UsageError(
            f"trainer.accelerator={accelerator}: there is none here; use auto, cpu"
            f"{''.join(f' or {name}' for name in present)}"
        )
    return torch.device(wanted[accelerator][0])


def _persons(config: DictConfig, device: torch.device) -> PersonSource:
    try:
        return person_source(str(config.boxes or "detector"), **config.persons, device=device)
    except ValueError as error:
        raise UsageError(f"boxes={config.boxes}: {error}") from error
