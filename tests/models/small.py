"""Models that a test runs in milliseconds, all of whose parts matter."""

from typing import Any

from hiera_video.models.hiera import Hiera
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.zoo import create_mae, create_model
from tests.models.reference import randomize

TINY = {"embed_dim": 16, "num_heads": 1, "stages": (1, 1, 2, 1), "input_size": (4, 64, 64)}


def tiny_model(**kwargs: Any) -> Hiera:
    """A classifier of 5 classes, of 4 frames of 64 by 64 pixels, in 8 mask units."""
    model = create_model("hiera_tiny_16x224", **{**TINY, "num_classes": 5, **kwargs})
    randomize(model)
    return model


def tiny_mae(**kwargs: Any) -> MaskedAutoencoderHiera:
    """A masked autoencoder of the same input."""
    mae = create_mae(
        "hiera_tiny_16x224",
        **{**TINY, "decoder_embed_dim": 32, "decoder_depth": 1, "decoder_num_heads": 4, **kwargs},
    )
    randomize(mae)
    return mae
