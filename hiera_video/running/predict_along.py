"""``predict`` of classes along videos: from a configuration to what `predict_along` takes."""

import logging
from pathlib import Path

from hydra.utils import get_class
from omegaconf import DictConfig

from datamodules.clips.format import ClipFormat
from datamodules.wording import counted
from hiera_video.errors import UsageError
from hiera_video.predicting.along_files import AlongOptions, check_along, predict_along
from hiera_video.predicting.classifier import Predictor
from hiera_video.running.making import made
from hiera_video.running.one_device import (
    device_and_precision,
    trained_network,
    videos_of,
)
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.weights.trained import Classes

log = logging.getLogger(__name__)


def names_classes(config: DictConfig) -> bool:
    """Whether the configuration's task is to name the classes of videos."""
    return issubclass(get_class(config.task._target_), ClassificationTask)


def predict_classes_along(config: DictConfig, weights: str, classes: Classes) -> None:
    """Write the classes along the videos of ``data.predict`` into the folder ``out``.

    It runs on one device.

    Args:
        config: the whole configuration.
        weights: a checkpoint, an export's file of weights, or a published name.
        classes: those that ``weights`` names; if none, they are numbers.

    Raises:
        UsageError: the configuration is wrong, or no video could be used.
    """
    videos, out = videos_of(config), Path(config.out)
    predictor = class_predictor(config, weights, classes)
    options = AlongOptions(config.stride, **config.along)
    try:
        check_along(predictor, videos, out, options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    log.info(f"predict {config.name} along {counted(len(videos), 'videos')} -> {out}")
    done = predict_along(predictor, videos, out, options)
    if not done:
        raise UsageError("none of the videos could be used", 1)
    log.info(f"{len(done)} of {counted(len(videos), 'videos')}, results in {out}")


def class_predictor(config: DictConfig, weights: str, classes: Classes) -> Predictor:
    """The configured classifier with trained weights, on its device.

    Args:
        config: the whole configuration.
        weights: as in `predict_classes_along`.
        classes: as in `predict_classes_along`.

    Raises:
        UsageError: the configuration is wrong, or the weights have no head.
    """
    task = made(config, "task")
    names = classes.names or tuple(task.class_names or ())
    network = trained_network(task, weights, len(names) or None)
    names = names or [str(i) for i in range(network.head.projection.out_features)]
    placed, views = device_and_precision(config), config.data.test_views
    try:
        return Predictor(
            network, names, ClipFormat.of(config.data), views, task.normalize, **placed
        )
    except ValueError as error:
        raise UsageError(str(error)) from error
