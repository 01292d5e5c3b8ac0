"""What a file of a video, a picture and a folder of pictures have in common: frames by time."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Self

import numpy as np

Crop = tuple[int, int, int, int]  # x1, y1, x2, y2 in displayed pixels


class Frames(ABC):
    """Frames by time. Use it in a ``with`` statement."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Free the files that are open."""

    def frames_at(
        self,
        seconds: Iterable[float],
        size: int | tuple[int, int] | None = None,
        crop: Crop | None = None,
        interpolation: str = "bilinear",
    ) -> np.ndarray:
        """Return the frames on display at the given times.

        The frame on display is the last one that starts at or before the time. A frame may start
        later by what its file rounds times to: half a tick of its clock, and where frames are as
        long as ticks, a twentieth. Before 0 it is the first frame, past the end the last. Time 0 is
        the start of the first displayed frame, whatever its timestamp.

        Args:
            seconds: the times, in any order; they may repeat.
            size: ``(height, width)`` to scale to, or the length of the short side.
            crop: ``(x1, y1, x2, y2)`` to cut out before scaling, in displayed pixels.
            interpolation: how to scale: ``bilinear`` or ``bicubic``; when shrinking, antialiased,
                as in Pillow.

        Returns:
            RGB, uint8 ``(n, height, width, 3)``, in the order of ``seconds``. Without ``size``,
            these are the frame's own pixels. Colours follow the matrix and range of the stream; an
            untagged stream is taken as BT.601 in limited range, as FFmpeg does. Pixels that are not
            square are left as they are.

        Raises:
            ValueError: a time is not finite, the crop is empty or leaves the frame, or the size is
                not positive.
            VideoDecodeError: a wanted frame is damaged, or lost where the file was cut off.
        """
        return self.clips_at([(seconds, crop)], size, interpolation)[0]

    @abstractmethod
    def clips_at(
        self,
        clips: Iterable[tuple[Iterable[float], Crop | None]],
        size: int | tuple[int, int] | None = None,
        interpolation: str = "bilinear",
    ) -> list[np.ndarray]:
        """Return several clips from one pass over the file; each frame is decoded only once.

        Args:
            clips: ``(seconds, crop)`` of each clip, as in `frames_at`.
            size: size of all clips, as in `frames_at`.
            interpolation: as in `frames_at`.

        Returns:
            For each clip what `frames_at` returns: uint8 ``(n, height, width, 3)``.

        Raises:
            ValueError, VideoDecodeError: as `frames_at`, for any of the clips.
        """
