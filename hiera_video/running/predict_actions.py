"""``predict`` of action detection: from a configuration to what `predict_files` takes."""

import logging
from pathlib import Path

import torch
from hydra.utils import get_class
from omegaconf import DictConfig

from datamodules.clips.format import ClipFormat
from datamodules.wording import counted
from hiera_video.errors import UsageError
from hiera_video.predicting.action_files import check_request, predict_files
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.persons import PersonSource, person_source
from hiera_video.running.making import made
from hiera_video.running.one_device import (
    device_and_precision,
    trained_network,
    videos_of,
)
from hiera_video.tasks.detection import DetectionTask, refuse_true_half
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
    videos, out = videos_of(config), Path(config.out)
    try:
        check_request(videos, out, config.min_action_score)
    except ValueError as error:
        raise UsageError(str(error)) from error
    predictor = action_predictor(config, weights, classes)
    persons = persons_of(config, predictor.device)
    log.info(f"predict {config.name} -> {out}")
    done = predict_files(predictor, persons, videos, out, config.min_action_score)
    if not done:
        raise UsageError("none of the videos could be used", 1)
    log.info(f"{len(done)} of {counted(len(videos), 'videos')}, results in {out}")


def action_predictor(config: DictConfig, weights: str, classes: Classes) -> ActionPredictor:
    """What scores actions; arguments and errors are those of `predict_actions`."""
    if not classes.names:
        raise UsageError(f"{weights} names no actions; give a run of action detection")
    refuse_true_half(str(config.trainer.precision))
    data, task = config.data, made(config, "task")
    network = trained_network(task, weights, len(classes.names))
    placed = device_and_precision(config)
    try:
        return ActionPredictor(
            network,
            classes.names,
            ClipFormat.of(config.data),
            classes.ids,
            task.normalize,
            times_person_score=task.person_score,
            short_side=data.get("eval_short_side"),
            pad=data.get("eval_pad") and tuple(data.eval_pad),
            **placed,
        )
    except ValueError as error:
        raise UsageError(f"trainer.precision: {error}") from error


def persons_of(config: DictConfig, device: torch.device) -> PersonSource:
    """What finds persons: ``boxes`` and ``persons`` of a configuration.

    Raises:
        UsageError: they are wrong.
    """
    boxes = str(config.boxes or "detector")
    try:
        return person_source(boxes, **config.persons, device=device)
    except ValueError as error:
        text = str(error)  # which names a file itself
        raise UsageError(text if text.startswith(boxes) else f"boxes={boxes}: {text}") from error
