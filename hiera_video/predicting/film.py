"""A video that is written again with something drawn on its frames, at flat memory."""

import logging
from collections.abc import Callable
from contextlib import ExitStack, closing
from fractions import Fraction
from pathlib import Path

from PIL import Image

from datamodules.video.decoding import VideoFile
from datamodules.video.playback import VideoWriter, play
from datamodules.video.sound import Sound
from hiera_video.visualize.boxes import laid_over

log = logging.getLogger(__name__)


class Film:
    """Writes the frames of a video, with overlays, and its sound. Use it in a ``with`` statement.

    Args:
        file: the video, open.
        path: the mp4 file to write.

    Raises:
        VideoDecodeError: the video cannot be read.
    """

    def __init__(self, file: VideoFile, path: Path) -> None:
        with ExitStack() as stack:
            sound = stack.enter_context(Sound(file.path))
            if sound.codec is None:
                log.info(f"{file.path} has no sound")
            self._writer = stack.enter_context(VideoWriter(path, file.rate, sound=sound))
            self._frames = stack.enter_context(closing(play(file.path)))
            self._shown = next(self._frames, None)  # the first frame that is not written yet
            self._stack = stack.pop_all()

    def __enter__(self) -> "Film":
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.__exit__(*error)  # pyright: ignore[reportArgumentType]

    def draw(self, until: float | Fraction, overlay: Callable[[int, int], Image.Image]) -> None:
        """Write the frames that start before a time and are not written yet, all with one overlay.

        Args:
            until: seconds from the start of the video.
            overlay: draws it: from the width and height of a frame to RGBA of this size.

        Raises:
            VideoDecodeError: the video is damaged here.
            OSError: the file cannot be written.
        """
        drawn = None
        while (shown := self._shown) is not None and shown.start < until:
            height, width = shown.picture.shape[:2]
            drawn = drawn or overlay(width, height)
            self._writer.write(shown._replace(picture=laid_over(shown.picture, drawn)))
            self._shown = next(self._frames, None)
