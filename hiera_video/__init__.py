"""Hiera Video: masked pretraining, classification and action detection with Hiera."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from hiera_video.models.names import list_models
    from hiera_video.predicting.load import load
    from hiera_video.weights.create import create_detector, create_mae, create_model
    from hiera_video.weights.load import load_weights

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "models.names": ["list_models"],
        "predicting.load": ["load"],
        "weights.create": ["create_detector", "create_mae", "create_model"],
        "weights.load": ["load_weights"],
    },
)
