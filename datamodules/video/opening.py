"""Opening a file whose name tells whether it is a video or a picture."""

import os

from datamodules.suffixes import PICTURES
from datamodules.video.container import Source, checked_source, name_of
from datamodules.video.decoding import VideoFile
from datamodules.video.pictures import PictureFile


def open_media(source: str | os.PathLike[str] | Source) -> VideoFile | PictureFile:
    """Open a picture as a `PictureFile` and anything else as a `VideoFile`.

    Args:
        source: as of `VideoFile`.

    Raises:
        TypeError: the source is neither a path nor such an object.
        VideoDecodeError: the file cannot be read.
    """
    source = checked_source(source)
    return PictureFile(source) if PICTURES.has(name_of(source)) else VideoFile(source)
