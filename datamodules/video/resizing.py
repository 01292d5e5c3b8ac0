"""A picture written anew, smaller: a training that reads it decodes less."""

import os
from pathlib import Path

from PIL import Image

from datamodules.files import atomic_file
from datamodules.video.pictures import PictureFile
from datamodules.video.probing import Facts, picture_facts

QUALITY = 95  # of the JPEG


def resize_picture(
    source: str | os.PathLike[str], target: Path, short_side: int, scratch: Path | None = None
) -> Facts:
    """Write a picture as a JPEG whose short side is at most so many pixels, turned for display.

    Args:
        source: a local file; it is not changed.
        target: the file to write; its folder must exist.
        short_side: pixels; a smaller picture keeps its size. Scaling is bicubic and antialiased.
        scratch: folder on the same file system for the unfinished file; by default the target's.

    Returns:
        Facts of the new file.

    Raises:
        VideoDecodeError: the source cannot be read.
        OSError: the target cannot be written.
    """
    with PictureFile(source) as file:
        size = min(short_side, file.width, file.height)
        (pixels,) = file.frames_at([0], size, interpolation="bicubic")
    with atomic_file(target, scratch) as temporary:
        # 4:4:4: colours keep their resolution.
        Image.fromarray(pixels).save(temporary, "JPEG", quality=QUALITY, subsampling=0)
        return picture_facts(str(temporary))
