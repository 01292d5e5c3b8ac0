"""The HTML page of a run, and videos to play in notebooks."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from hiera_video.reporting.gallery import Gallery, mistakes

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
