"""Pictures in class folders or listed in a text file."""

from datamodules.folder import VideoFolderDataModule
from datamodules.suffixes import PICTURES


class ImageFolderDataModule(VideoFolderDataModule):
    """Pictures below one root, of any data set: batches of clips of one frame.

    Splits are as in `VideoFolderDataModule`, with pictures in place of videos. A batch has
    ``video`` uint8 ``(B, 3, 1, H, W)``; tasks drop the axis of frames for a network of images.

    Args:
        *args: see `VideoFolderDataModule`.
        num_frames: 1; a network of videos may be shown more, all of them the same picture.
        crop_scale: as in `VideoDataModule`.
        interpolation: as in `VideoDataModule`.
        eval_crop: as in `VideoDataModule`.
        test_views: as in `VideoDataModule`; the temporal views of a picture are the same.
        **kwargs: see `VideoFolderDataModule` and `VideoDataModule`.
    """

    unit = "images"
    media = PICTURES

    def __init__(
        self,
        *args,
        num_frames: int = 1,
        crop_scale: tuple[float, float] = (0.08, 1.0),
        interpolation: str = "bicubic",
        eval_crop: float = 0.875,
        test_views: tuple[int, int] = (1, 1),
        **kwargs,
    ) -> None:
        super().__init__(
            *args,
            num_frames=num_frames,
            crop_scale=crop_scale,
            interpolation=interpolation,
            eval_crop=eval_crop,
            test_views=test_views,
            **kwargs,
        )
