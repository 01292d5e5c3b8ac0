"""Names of models, and what they stand for.

Importing this needs no torch; building a model does.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from hiera_video.spelling import did_you_mean

if TYPE_CHECKING:
    from hiera_video.models.action_detector import HieraActionDetector
    from hiera_video.models.hiera import Hiera
    from hiera_video.models.mae import MaskedAutoencoderHiera

# First stage's channels and heads, and blocks of each stage.
WIDTHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 7, 2)},
    "small": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 11, 2)},
    "base": {"embed_dim": 96, "num_heads": 1, "stages": (2, 3, 16, 3)},
    "base_plus": {"embed_dim": 112, "num_heads": 2, "stages": (2, 3, 16, 3)},
    "large": {"embed_dim": 144, "num_heads": 2, "stages": (2, 6, 36, 4)},
    "huge": {"embed_dim": 256, "num_heads": 4, "stages": (2, 6, 36, 4)},
}
# ImageNet-1K and Kinetics-400.
INPUTS: dict[str, dict[str, Any]] = {
    "224": {"input_size": (224, 224), "num_classes": 1000},
    "16x224": {"input_size": (16, 224, 224), "num_classes": 400},
}
MODELS: dict[str, dict[str, Any]] = {
    f"hiera_{width}_{size}": {**arguments, **INPUTS[size]}
    for size in INPUTS
    for width, arguments in WIDTHS.items()
}

# For tiny and small, no weights were published for video.
CHECKPOINTS: tuple[str, ...] = tuple(
    prefix + name.removeprefix("hiera_")
    for name in MODELS
    if name not in ("hiera_tiny_16x224", "hiera_small_16x224")
    for prefix in ("hiera_", "mae_hiera_")
)


def list_models() -> list[str]:
    """All names that `create_model` and `create_mae` know."""
    return list(MODELS)


def model_arguments(name: str) -> dict[str, Any]:
    """Constructor arguments that a name stands for.

    Raises:
        ValueError: there is no such name; the message has the nearest ones.
    """
    if name not in MODELS:
        hint = did_you_mean(name, MODELS) or f"; there are {', '.join(MODELS)}"
        raise ValueError(f"no model {name!r}{hint}")
    return dict(MODELS[name])


def create_model(name: str | os.PathLike[str], **overrides: Any) -> Hiera:
    """A classifier with random weights, or an exported one with its own.

    Args:
        name: one of `list_models`; or a folder, or its ``model.json``, that ``export --format
            safetensors`` wrote.
        **overrides: any arguments of `Hiera`, in place of those that the name stands for.

    Raises:
        ValueError: an unknown name, or arguments that do not go together.
        CheckpointError: a ValueError: the folder cannot be read, or is of another model.
    """
    from hiera_video.models.hiera import Hiera

    if _is_exported(name):
        return _read_model(name, "classifier", overrides)
    name = os.fspath(name)
    return Hiera(**{**model_arguments(name), **overrides})


def create_mae(name: str | os.PathLike[str], **overrides: Any) -> MaskedAutoencoderHiera:
    """A masked autoencoder with random weights, for pretraining the classifier of that name.

    Args:
        name: one of `list_models`; or an exported masked autoencoder, as in `create_model`.
        **overrides: any arguments of `MaskedAutoencoderHiera`.

    Raises:
        ValueError: an unknown name, or arguments that do not go together.
        CheckpointError: a ValueError: the folder cannot be read, or is of another model.
    """
    from hiera_video.models.mae import MaskedAutoencoderHiera

    if _is_exported(name):
        return _read_model(name, "masked_autoencoder", overrides)
    name = os.fspath(name)
    arguments = model_arguments(name)
    del arguments["num_classes"]
    return MaskedAutoencoderHiera(**{**arguments, **overrides})


def create_detector(name: str, num_classes: int = 80, **overrides: Any) -> HieraActionDetector:
    """An action detector with random weights, on the encoder of that name.

    Args:
        name: one of `list_models` for video.
        num_classes: actions; AVA has 80.
        **overrides: any arguments of `HieraActionDetector`.

    Raises:
        ValueError: an unknown name, or arguments that do not go together.
    """
    from hiera_video.models.action_detector import HieraActionDetector

    arguments = {**model_arguments(name), "num_classes": num_classes}
    return HieraActionDetector(**{**arguments, **overrides})


def _is_exported(name: str | os.PathLike[str]) -> bool:
    return os.fspath(name) not in MODELS and os.path.exists(name)


def _read_model(path: str | os.PathLike[str], kind: str, overrides: dict[str, Any]) -> Any:
    from hiera_video.weights.portable import read_model  # which builds on what is here

    return read_model(os.fspath(path), kind, **overrides)
