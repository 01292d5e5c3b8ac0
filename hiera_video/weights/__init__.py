"""Files of weights: read, adapted, downloaded, described."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from hiera_video.weights.portable import build
    from hiera_video.weights.trained import read_trained

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
