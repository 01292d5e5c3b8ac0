"""Names of models, and the constructor arguments that they stand for. Needs no torch."""

from collections.abc import Sequence
from typing import Any

from hiera_video.terminal import did_you_mean

# Channels and attention heads of the first stage, and the number of blocks in each stage.
WIDTHS: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 7, 2)},
    "small": {"embed_dim": 96, "num_heads": 1, "stages": (1, 2, 11, 2)},
    "base": {"embed_dim": 96, "num_heads": 1, "stages": (2, 3, 16, 3)},
    "base_plus": {"embed_dim": 112, "num_heads": 2, "stages": (2, 3, 16, 3)},
    "large": {"embed_dim": 144, "num_heads": 2, "stages": (2, 6, 36, 4)},
    "huge": {"embed_dim": 256, "num_heads": 4, "stages": (2, 6, 36, 4)},
}
# Input sizes in pixels (videos: frames first) and classes: ImageNet-1K and Kinetics-400.
INPUTS: dict[str, dict[str, Any]] = {
    "224": {"input_size": (224, 224), "num_classes": 1000},
    "16x224": {"input_size": (16, 224, 224), "num_classes": 400},
}
# Mean and standard deviation of red, green and blue, in [0, 1], of the inputs that the published
# models were trained on: ImageNet's, and for videos PySlowFast's DATA.MEAN and DATA.STD.
IMAGE_MEAN, IMAGE_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
VIDEO_MEAN, VIDEO_STD = (0.45, 0.45, 0.45), (0.225, 0.225, 0.225)
MODELS: dict[str, dict[str, Any]] = {
    f"hiera_{width}_{size}": {**arguments, **INPUTS[size]}
    for size in INPUTS
    for width, arguments in WIDTHS.items()
}

# Published weights. There are none of tiny and small for videos.
CHECKPOINTS: tuple[str, ...] = tuple(
    prefix + name.removeprefix("hiera_")
    for name in MODELS
    if name not in ("hiera_tiny_16x224", "hiera_small_16x224")
    for prefix in ("hiera_", "mae_hiera_")
)


def list_models() -> list[str]:
    """All names that `create_model`, `create_mae` and (for videos) `create_detector` accept."""
    return list(MODELS)


def model_arguments(name: str) -> dict[str, Any]:
    """Constructor arguments of `Hiera` that a name stands for, as a new dict.

    Raises:
        ValueError: an unknown name; the message suggests the nearest ones.
    """
    if name not in MODELS:
        hint = did_you_mean(name, MODELS) or f"; there are {', '.join(MODELS)}"
        raise ValueError(f"no model {name!r}{hint}")
    return dict(MODELS[name])


def nearest_name(embed_dim: int, stages: Sequence[int], axes: int) -> str:
    """The first model of these widths and depths, or any of its axes: arguments say the rest.

    Args:
        embed_dim: channels of the first stage.
        stages: number of blocks in each stage.
        axes: of its input, 2 for images and 3 for videos.
    """
    models = {name: model for name, model in MODELS.items() if len(model["input_size"]) == axes}
    size = (embed_dim, tuple(stages))
    names = (n for n, m in models.items() if (m["embed_dim"], m["stages"]) == size)
    return next(names, next(iter(models)))
