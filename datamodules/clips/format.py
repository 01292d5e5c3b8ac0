"""What the model sees of a video: how many frames, which, and how large."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from datamodules.clips.boxes import Box
from datamodules.clips.sampling import (
    centre_crop,
    clip_span,
    clip_times,
    covering_size,
    last_frame_time,
    picture_size,
    random_clip_start,
    random_segment_times,
    segment_view_times,
    spread_stride,
    view_crops,
    view_starts,
)

SAMPLINGS = ("clip", "spread", "segments")


class ClipFormat(NamedTuple):
    """What the model sees of a video, or of a picture, which is a video of one frame.

    Attributes:
        num_frames: frames of a clip, T.
        stride: with the sampling ``clip``, every ``stride``-th frame is taken.
        fps: nominal frames per second that ``stride`` counts.
        height: H, pixels.
        width: W, pixels.
        sampling: ``clip``; ``spread``: T frames from the first to the last of ``T * stride``, at
            equal steps; or ``segments``: one frame of each of T equal parts of the video.
        interpolation: how crops are scaled: ``bilinear`` or ``bicubic``.
        eval_crop: share of the picture's short side that a view covers in evaluation, in (0, 1].
    """

    num_frames: int
    stride: int
    fps: float
    height: int
    width: int
    sampling: str = "clip"
    interpolation: str = "bilinear"
    eval_crop: float = 1.0

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "ClipFormat":
        """From values by name, with ``size`` for height and width; other names are ignored."""
        height, width = values["size"]
        fields = {name: values[name] for name in cls._fields if name in values}
        return cls(**{**fields, "height": height, "width": width})

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of a clip's pixels: ``(T, H, W, 3)``."""
        return self.num_frames, self.height, self.width, 3

    @property
    def span(self) -> float:
        """Seconds from the first to the last frame."""
        return clip_span(self.num_frames, self.step, self.fps)

    @property
    def step(self) -> float:
        """Nominal frames from one frame of a clip to the next."""
        if self.sampling == "spread":
            return spread_stride(self.num_frames, self.stride)
        return self.stride

    def scaled_size(self, width: int, height: int) -> tuple[int, int]:
        """The (height, width) to which a picture is scaled before views of it are cropped."""
        least = (round(side / self.eval_crop) for side in (self.width, self.height))
        return (picture_size if self.num_frames == 1 else covering_size)(width, height, *least)

    def view_boxes(self, width: int, height: int, views: int) -> list[Box]:
        """The boxes of views in a scaled picture; see `view_crops`. One of an image is its centre.

        Args:
            width: of the scaled picture, pixels.
            height: of the scaled picture, pixels.
            views: number of boxes.
        """
        if self.num_frames == 1 and views == 1:
            return [centre_crop(width, height, self.width, self.height)]
        return view_crops(width, height, self.width, self.height, views)

    def times(self, start: float) -> np.ndarray:
        """Times of the frames of a clip that starts at ``start``: float64 ``(T,)``, seconds."""
        return clip_times(start, self.num_frames, self.step, self.fps)

    def random_times(self, duration: float, rng: np.random.Generator) -> np.ndarray:
        """Draw the times of the frames of a training clip.

        Args:
            duration: of the video, seconds.
            rng: source of randomness.

        Returns:
            float64 ``(T,)``, seconds.
        """
        if self.sampling == "segments":
            return random_segment_times(duration, self.num_frames, rng)
        return self.times(random_clip_start(duration, self.span, rng))

    def view_times(self, duration: float, rate: float, views: int) -> list[np.ndarray]:
        """Times of the frames of each temporal view of a video.

        Args:
            duration: of the video, seconds.
            rate: of the video, frames per second.
            views: number of temporal views.

        Returns:
            For each view float64 ``(T,)``, seconds.
        """
        if self.sampling == "segments":
            return segment_view_times(duration, self.num_frames, views)
        last = last_frame_time(duration, rate)
        return [self.times(start) for start in view_starts(last, self.span, views)]
