"""The operations of pytorchvideo's RandAugment, by the library's own functions."""

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from hiera_video.augment.pil_ops import equalize


@functools.cache
def augmentations() -> Any:
    """The module ``pytorchvideo.transforms.augmentations``, which takes seconds to import."""
    with warnings.catch_warnings():  # other libraries warn about what it imports
        warnings.simplefilter("ignore")
        # pytorchvideo 0.1.5 imports a module of torchvision by the name it had before 0.17.
        sys.modules.setdefault(
            "torchvision.transforms.functional_tensor",
            importlib.import_module("torchvision.transforms._functional_tensor"),
        )
        return importlib.import_module("pytorchvideo.transforms.augmentations")


def apply(clip: Tensor, operations: Sequence[tuple[str, float | None]]) -> Tensor:
    """Apply operations in order.

    Args:
        clip: uint8 ``(3, T, H, W)``.
        operations: a name as in pytorchvideo and its argument, or None for one without an argument.

    Returns:
        uint8 ``(3, T, H, W)``: the float result of the last operation, rounded.
    """
    frames = clip.transpose(0, 1).float() / 255  # (T, 3, H, W)
    for name, argument in operations:
        arguments = () if argument is None else (argument,)
        frames = _function(name)(frames, *arguments)
    return (frames * 255).round_().clamp_(0, 255).to(torch.uint8).transpose(0, 1)


@functools.cache
def _function(name: str) -> Callable[..., Tensor]:
    if name == "Equalize":
        return _equalize
    transform = augmentations().AugmentTransform(name)
    return functools.partial(transform.transform_fn, **transform.transform_hparas)


def _equalize(frames: Tensor) -> Tensor:
    """The library's result without its loop over frames and channels.

    Args:
        frames: float ``(T, 3, H, W)`` in [0, 1].

    Returns:
        The same shape and range.
    """
    return (equalize((frames * 255).to(torch.uint8).transpose(0, 1)) / 255).transpose(0, 1)
