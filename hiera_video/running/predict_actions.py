"""``predict`` of action detection: from a configuration to what `predict_files` takes."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_class, instantiate
from lightning import Fabric
from omegaconf import DictConfig

from datamodules.clips.videos import ClipFormat
from datamodules.manifests.splits import list_split, list_videos
from hiera_video.errors import UsageError
from hiera_video.predicting.action_files import check_request, predict_files
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.persons import PersonSource, person_source
from hiera_video.tasks.detection import DetectionTask, refuse_true_half
from hiera_video.weights.load import load_weights

log = logging.getLogger(__name__)


def detects_actions(config: DictConfig) -> bool:
    """Whether the configuration's task is to detect actions."""
    return issubclass(get_class(config.task._target_), DetectionTask)


def predict_actions(
    config: DictConfig, weights: str, class_names: Sequence[str], action_ids: Sequence[int]
) -> None:
    """Write what persons do in ``data.predict`` to ``out``, on one device.

    Args:
        config: the whole configuration.
        weights: the checkpoint, or other trained weights.
        class_names: those that it names.
        action_ids: of the same; none: 1, 2, 3, ...

    Raises:
        UsageError: something is wrong with it, or no video worked.
        MisconfigurationException: ``trainer.precision`` would round boxes.
    """
    if not class_names:
        raise UsageError(f"{weights} names no actions; give a run of action detection")
    accelerator, precision = config.trainer.accelerator, config.trainer.precision
    refuse_true_half(str(precision))
    listed = list_videos(
        config.data.get("predict", ()), lambda file: list_split(file, Path(), None)
    )
    videos, out = [listed.path(i) for i in range(len(listed))], Path(config.out)
    try:
        check_request(videos, out, config.min_action_score)
    except ValueError as error:
        raise UsageError(str(error)) from error
    task: Any = instantiate(config.task, _convert_="all")
    fabric = Fabric(accelerator=accelerator, devices=1, precision=precision)
    network: Any = _network(task, weights, len(class_names))
    data = config.data
    predictor = ActionPredictor(
        fabric.setup_module(network),
        class_names,
        ClipFormat(data.num_frames, data.stride, data.fps, *data.size),
        _persons(config, fabric.device),
        action_ids,
        normalize=task.normalize,
        times_person_score=task.person_score,
        short_side=data.get("eval_short_side"),
        pad=data.get("eval_pad") and tuple(data.eval_pad),
        device=fabric.device,
    )
    log.info(f"predict {config.name} -> {out}")
    done = predict_files(predictor, videos, out, config.min_action_score)
    if not done:
        raise UsageError("none of the videos could be used", 1)
    log.info(f"{len(done)} of {len(videos)} videos, results in {out}")


def _persons(config: DictConfig, device: torch.device) -> PersonSource:
    try:
        return person_source(str(config.boxes or "detector"), **config.persons, device=device)
    except ValueError as error:
        raise UsageError(f"boxes={config.boxes}: {error}") from error


def _network(task: Any, weights: str, classes: int) -> torch.nn.Module:
    network = task.create_network(num_classes=classes)
    report = load_weights(network, weights, quiet=True)
    if report.missing:
        raise UsageError(f"{weights} lacks {report.missing[0]}; fine-tune from it first")
    return network.eval()
