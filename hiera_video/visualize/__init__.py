"""Pictures of reconstructions, confusion matrices, actions, features and saliency maps."""

from typing import TYPE_CHECKING

from datamodules.lazy import public_names

if TYPE_CHECKING:
    from hiera_video.visualize.class_accuracy import class_accuracy_picture
    from hiera_video.visualize.confusion import confusion_picture
    from hiera_video.visualize.explained import stage_figure, token_order_figure, unit_figure
    from hiera_video.visualize.feature_colours import (
        principal_colours,
        stage_pictures,
        stage_sheet,
    )
    from hiera_video.visualize.heat import heat_over, heat_sheet
    from hiera_video.visualize.notebook import Player, sliders
    from hiera_video.visualize.reconstruction import (
        moving_pictures,
        picture_sheet,
        row_captions,
        to_image,
    )

__getattr__, __dir__, __all__ = public_names(__name__, __file__)
