"""Clips along a video of any length, for answers and features over time."""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from datamodules.clips.format import ClipFormat
from datamodules.clips.sampling import clip_times, last_frame_time
from datamodules.clips.videos import clips_and_crops
from datamodules.video.decoding import VideoFile

WINDOWS_AT_ONCE = 8  # decoded together, at least
SPANS_AT_ONCE = 4  # so that few frames are decoded for two groups of overlapping windows
MOST_AT_ONCE = 64  # 154 MB of clips of 16x224x224


class Window(NamedTuple):
    """A part of a video, and what a network sees for it.

    Attributes:
        start: seconds from the start of the video.
        end: the same; the start of the next part, or the end of the video.
        clips: uint8 ``(spatial, T, H, W, 3)``, the crops of one clip around the middle of the part.
    """

    start: float
    end: float
    clips: np.ndarray


def sliding_windows(
    file: VideoFile, clip: ClipFormat, stride: float, length: float | None = None, spatial: int = 1
) -> Iterator[Window]:
    """Cut a video into equal parts, and take a clip around the middle of each.

    A clip may be longer than its part, so that clips overlap, or shorter. At both ends of the video
    it is moved inside; a video shorter than a clip ends with repeated frames. The file is read
    forwards, some windows at a time: memory does not grow with its length.

    Args:
        file: the video.
        clip: format of a clip.
        stride: seconds of a part; the last one may be shorter.
        length: seconds of a clip, over which its frames are spread evenly; None: frames as far
            apart as in training. A clip of segments (``sampling="segments"``) needs it.
        spatial: crops of each clip, spread along the longer side of the picture.

    Raises:
        VideoDecodeError: the file is damaged; windows before the damage have been yielded.
        ValueError: ``stride`` or ``length`` is not positive, or a length is missing.
    """
    step = window_step(clip, stride, length)
    span = (clip.num_frames - 1) * step
    latest = max(0.0, last_frame_time(file.duration, float(file.rate)) - span)
    # A remainder of less than a frame is an error of rounding, not a part.
    count = max(1, math.ceil((file.duration - 0.5 / float(file.rate)) / stride))
    at_once = math.ceil(min(MOST_AT_ONCE, max(WINDOWS_AT_ONCE, SPANS_AT_ONCE * span / stride)))
    for first in range(0, count, at_once):
        starts = [i * stride for i in range(first, min(first + at_once, count))]
        ends = [min(start + stride, file.duration) for start in starts]
        ends[-1] = file.duration if first + at_once >= count else ends[-1]
        middles = [(start + end) / 2 for start, end in zip(starts, ends, strict=True)]
        times = [
            clip_times(min(max(0.0, middle - span / 2), latest), clip.num_frames, step, 1.0)
            for middle in middles
        ]
        crops = clips_and_crops(file, clip, times, spatial)  # (windows, spatial, T, H, W, 3)
        yield from map(Window, starts, ends, crops)


def window_step(clip: ClipFormat, stride: float, length: float | None = None) -> float:
    """Seconds between the frames of a window's clip.

    Args:
        clip: format of a clip.
        stride: as in `sliding_windows`.
        length: as in `sliding_windows`.

    Raises:
        ValueError: ``stride`` or ``length`` is not positive, or a length is missing.
    """
    for name, seconds in (("stride", stride), ("window", length)):
        if seconds is not None and not (seconds > 0 and math.isfinite(seconds)):
            raise ValueError(f"{name} must be a positive number of seconds, not {seconds}")
    if length is not None:
        return length / clip.num_frames
    if clip.sampling == "segments":
        raise ValueError("this model saw frames of whole videos: set window, in seconds")
    return clip.step / clip.fps
