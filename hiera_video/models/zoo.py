"""Networks by name, with random weights.

`hiera_video.create_model` and its like also read exported models; they are in `weights.create`,
which describes the arguments.
"""

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from hiera_video.models.action_detector import HieraActionDetector
from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.mask_rcnn import MaskRCNNHiera
from hiera_video.models.names import model_arguments

WHOLE = ("num_classes", "in_chans", "embed_dim", "num_heads", "q_pool")
WHOLE += ("decoder_embed_dim", "decoder_depth")
HEAD = ("num_classes", "head_dropout", "head_init_scale")  # what autoencoders do not have

# Whoever checks the keys of a configuration reads from the return annotations which class takes
# the overrides.


def create_model(name: str, **overrides: Any) -> Hiera:
    """A classifier with random weights."""
    return Hiera(**{**model_arguments(name), **_checked(overrides)})


def create_mae(name: str, **overrides: Any) -> MaskedAutoencoderHiera:
    """A masked autoencoder with random weights, to pretrain the classifier of the same name."""
    arguments = model_arguments(name)
    del arguments["num_classes"]
    if ignored := [name for name in HEAD if name in overrides]:
        raise TypeError(f"{ignored[0]}: a masked autoencoder has no classifier")
    return MaskedAutoencoderHiera(**{**arguments, **_checked(overrides)})


def create_detector(name: str, num_classes: int = 80, **overrides: Any) -> HieraActionDetector:
    """An action detector with random weights, on the encoder of the name."""
    arguments = {**model_arguments(name), "num_classes": num_classes}
    return HieraActionDetector(**_checked({**arguments, **overrides}))


def create_mask_rcnn(name: str, num_classes: int = 80, **overrides: Any) -> MaskRCNNHiera:
    """A detector of objects and their masks with random weights, on the encoder of the name."""
    arguments = {**model_arguments(name), "num_classes": num_classes}
    return MaskRCNNHiera(**_checked({**arguments, **overrides}))


def _checked(arguments: dict[str, Any]) -> dict[str, Any]:
    """The arguments; an error in place of what torch would say about wrong types."""
    if "pretrained" in arguments:
        raise TypeError(
            "pretrained: models are made with random weights; load_weights(model, NAME) then reads "
            "published ones"
        )
    for name in WHOLE:
        value = arguments.get(name, 1)
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise ValueError(f"{name} must be a whole number, not {value!r}")
    size = arguments.get("input_size", ())
    if not isinstance(size, Sequence) or isinstance(size, str):
        raise ValueError(
            f"input_size must be (height, width) or (frames, height, width), not {size!r}"
        )
    return arguments
