"""Networks by name, with random weights.

`hiera_video.create_model` and its like also read exported models; they are in `weights.create`,
which describes the arguments.
"""

from typing import Any

from hiera_video.models.action_detector import HieraActionDetector
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.mask_rcnn import MaskRCNNHiera
from hiera_video.models.names import model_arguments

# Whoever checks the keys of a configuration reads from the return annotations which class takes
# the overrides.


def create_model(name: str, **overrides: Any) -> Hiera:
    """A classifier with random weights."""
    return Hiera(**{**model_arguments(name), **overrides})


def create_mae(name: str, **overrides: Any) -> MaskedAutoencoderHiera:
    """A masked autoencoder with random weights, to pretrain the classifier of the same name."""
    arguments = model_arguments(name)
    del arguments["num_classes"]
    return MaskedAutoencoderHiera(**{**arguments, **overrides})


def create_detector(name: str, num_classes: int = 80, **overrides: Any) -> HieraActionDetector:
    """An action detector with random weights, on the encoder of the name."""
    arguments = {**model_arguments(name), "num_classes": num_classes}
    return HieraActionDetector(**{**arguments, **overrides})


def create_mask_rcnn(name: str, num_classes: int = 80, **overrides: Any) -> MaskRCNNHiera:
    """A detector of objects and their masks with random weights, on the encoder of the name."""
    arguments = {**model_arguments(name), "num_classes": num_classes}
    return MaskRCNNHiera(**{**arguments, **overrides})
