"""Hiera Video: masked pretraining, classification and action detection with Hiera."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hiera_video.models.names import list_models
    from hiera_video.predicting.load import load
    from hiera_video.predicting.neighbours import neighbours
    from hiera_video.weights.create import (
        create_detector,
        create_mae,
        create_mask_rcnn,
        create_model,
    )
    from hiera_video.weights.load import load_weights

# Not by `datamodules.lazy`: with `python -m hiera_video` this file runs before `__main__` moves the
# current folder, which may hold a `datamodules` of the user's own, to the end of the search path.
_MODULES = {
    "create_detector": "weights.create",
    "create_mae": "weights.create",
    "create_mask_rcnn": "weights.create",
    "create_model": "weights.create",
    "list_models": "models.names",
    "load": "predicting.load",
    "load_weights": "weights.load",
    "neighbours": "predicting.neighbours",
}
__all__ = [
    "create_detector",
    "create_mae",
    "create_mask_rcnn",
    "create_model",
    "list_models",
    "load",
    "load_weights",
    "neighbours",
]


def __getattr__(name: str) -> Any:
    """Import torch only when a name that needs it is used."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"hiera_video.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(_MODULES)
