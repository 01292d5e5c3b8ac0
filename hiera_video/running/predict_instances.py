"""``predict`` of instance segmentation: from a configuration to what `predict_instances` takes."""

import logging
from pathlib import Path

from hydra.utils import get_class
from omegaconf import DictConfig

from datamodules.suffixes import EITHER
from datamodules.wording import counted
from hiera_video.errors import UsageError
from hiera_video.predicting.instance_files import check_instances, predict_instances
from hiera_video.predicting.instances import InstancePredictor
from hiera_video.running.making import made
from hiera_video.running.one_device import device_and_precision, trained_network, videos_of
from hiera_video.tasks.detection import refuse_true_half
from hiera_video.tasks.instance_segmentation import InstanceSegmentationTask
from hiera_video.weights.trained import Classes

log = logging.getLogger(__name__)


def finds_objects(config: DictConfig) -> bool:
    """Whether the configuration's task is to find objects and their masks."""
    return issubclass(get_class(config.task._target_), InstanceSegmentationTask)


def predict_objects(config: DictConfig, weights: str, classes: Classes) -> None:
    """Write the objects in the pictures and videos of ``data.predict`` into the folder ``out``.

    It runs on one device.

    Args:
        config: the whole configuration.
        weights: a checkpoint, an export's file of weights, or a published name.
        classes: those that ``weights`` names; without ids they are 1, 2, 3, ...

    Raises:
        UsageError: the configuration is wrong, ``weights`` has no classes, or no file could be
            used.
        MisconfigurationException: ``trainer.precision`` would round boxes.
    """
    files, out = videos_of(config, EITHER), Path(config.out)
    options = config.min_score, config.stride
    try:
        check_instances(files, out, *options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    predictor = _predictor(config, weights, classes)
    log.info(f"predict {config.name} -> {out}")
    done = predict_instances(predictor, files, out, *options)
    if not done:
        raise UsageError("none of the files could be used", 1)
    log.info(f"{len(done)} of {counted(len(files), 'files')}, results in {out}")


def _predictor(config: DictConfig, weights: str, classes: Classes) -> InstancePredictor:
    if not classes.names:
        raise UsageError(f"{weights} names no classes; give a run of instance segmentation")
    refuse_true_half(str(config.trainer.precision))
    task = made(config, "task")
    network = trained_network(task, weights, len(classes.names))
    size, ids, placed = list(config.data.size), classes.ids, device_and_precision(config)
    try:
        return InstancePredictor(network, classes.names, size, ids, task.normalize, **placed)
    except ValueError as error:
        raise UsageError(str(error)) from error
