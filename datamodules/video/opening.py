"""Opening a file whose name tells whether it is a video or a picture."""

import os

from datamodules.suffixes import PICTURES
from datamodules.video.container import Source
from datamodules.video.decoding import VideoFile
from datamodules.video.pictures import PictureFile


def open_media(source: str | os.PathLike[str] | Source) -> VideoFile | PictureFile:
    """Open a picture as a `PictureFile` and anything else as a `VideoFile`.

    Args:
        source: as of `VideoFile`.

    Raises:
        VideoDecodeError: the file cannot be read.
    """
    name = os.fsdecode(source) if isinstance(source, str | os.PathLike) else source.name
    return PictureFile(source) if PICTURES.has(name) else VideoFile(source)
