"""Create models: by name with random weights, or from an exported folder with its weights."""

import os
from typing import Any

from hiera_video.models import zoo
from hiera_video.models.action_detector import HieraActionDetector
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.mask_rcnn import MaskRCNNHiera
from hiera_video.models.names import MODELS
from hiera_video.weights.portable import read_model


def create_model(name: str | os.PathLike[str], **overrides: Any) -> Hiera:
    """Create a classifier.

    Args:
        name: one of `list_models`, for random weights; or a folder that ``export --format
            safetensors`` wrote (or the ``model.json`` in it), for the weights in that folder.
        **overrides: arguments of `Hiera` that replace those of the name or the export. With another
            number of classes, the head has random weights.

    Returns:
        The model, in training mode, float32, on the CPU.

    Raises:
        ValueError: an unknown name, or arguments that contradict each other.
        CheckpointError: (a ValueError) the folder cannot be read, or holds another kind of model.
    """
    if _is_exported(name):
        return read_model(name, "classifier", **overrides)
    return zoo.create_model(os.fspath(name), **overrides)


def create_mae(name: str | os.PathLike[str], **overrides: Any) -> MaskedAutoencoderHiera:
    """Create a masked autoencoder, to pretrain the classifier of the same name.

    Args:
        name: one of `list_models`, or an exported masked autoencoder; see `create_model`.
        **overrides: arguments of `MaskedAutoencoderHiera` that replace those of the name or the
            export.

    Returns:
        The model, in training mode, float32, on the CPU.

    Raises:
        ValueError: an unknown name, or arguments that contradict each other.
        CheckpointError: (a ValueError) the folder cannot be read, or holds another kind of model.
    """
    if _is_exported(name):
        return read_model(name, "masked_autoencoder", **overrides)
    return zoo.create_mae(os.fspath(name), **overrides)


def create_detector(
    name: str | os.PathLike[str], num_classes: int | None = None, **overrides: Any
) -> HieraActionDetector:
    """Create an action detector.

    Args:
        name: one of `list_models` for videos, or an exported action detector; see `create_model`.
        num_classes: number of actions; by default those of the export, or the 80 of AVA's
            benchmark.
        **overrides: arguments of `HieraActionDetector` that replace those of the name or the
            export.

    Returns:
        The model, in training mode, float32, on the CPU.

    Raises:
        ValueError: an unknown name, a model of images, or arguments that contradict each other.
        CheckpointError: (a ValueError) the folder cannot be read, or holds another kind of model.
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if _is_exported(name):
        return read_model(name, "action_detector", **overrides)
    return zoo.create_detector(os.fspath(name), **overrides)


def create_mask_rcnn(
    name: str | os.PathLike[str], num_classes: int | None = None, **overrides: Any
) -> MaskRCNNHiera:
    """Create a Mask R-CNN.

    Args:
        name: one of `list_models` for images, or an exported Mask R-CNN; see `create_model`.
        num_classes: number of classes, without the background; by default those of the export, or
            the 80 of COCO.
        **overrides: arguments of `MaskRCNNHiera` that replace those of the name or the export.

    Returns:
        The model, in training mode, float32, on the CPU.

    Raises:
        ValueError: an unknown name, a model of videos, or arguments that contradict each other.
        CheckpointError: (a ValueError) the folder cannot be read, or holds another kind of model.
    """
    if num_classes is not None:
        overrides["num_classes"] = num_classes
    if _is_exported(name):
        return read_model(name, "mask_rcnn", **overrides)
    return zoo.create_mask_rcnn(os.fspath(name), **overrides)


def _is_exported(name: str | os.PathLike[str]) -> bool:
    return os.fspath(name) not in MODELS and os.path.exists(name)
