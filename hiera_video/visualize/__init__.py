"""Pictures of reconstructions, confusion matrices, actions and saliency maps."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from hiera_video.visualize.confusion import confusion_picture
    from hiera_video.visualize.heat import heat_over, heat_sheet
    from hiera_video.visualize.notebook import Player, sliders
    from hiera_video.visualize.reconstruction import (
        clip_gif,
        picture_sheet,
        reconstruction_sheet,
        row_captions,
        to_image,
    )

__getattr__, __dir__, __all__ = public_names(
    __name__,
    {
        "confusion": ["confusion_picture"],
        "heat": ["heat_over", "heat_sheet"],
        "notebook": ["Player", "sliders"],
        "reconstruction": [
            "clip_gif",
            "picture_sheet",
            "reconstruction_sheet",
            "row_captions",
            "to_image",
        ],
    },
)
