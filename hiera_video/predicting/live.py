"""The classes of a camera or a stream, as it goes on."""

import time
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import numpy as np

from datamodules.clips.sampling import view_crops
from datamodules.clips.videos import ClipFormat
from datamodules.clips.windows import window_step
from datamodules.video.decoding import scale
from datamodules.video.live import LiveFrames
from datamodules.video.live_source import Opening, opening_of
from hiera_video.predicting.classifier import Predictor


class LiveAnswer(NamedTuple):
    """What is predicted for the newest frames.

    Attributes:
        time: seconds from the first frame of the stream to the newest.
        probabilities: of all classes, float64 ``(classes,)``; the sum is 1.
        latency: seconds from the moment the newest frame was decoded to the answer.
        dropped: frames so far that the model has not seen, and will not see.
    """

    time: float
    probabilities: np.ndarray
    latency: float
    dropped: int


def live_answers(
    predictor: Predictor, source: str | Opening, stride: float = 1.0, window: float | None = None
) -> Iterator[LiveAnswer]:
    """Name the classes of a camera or a stream until it ends.

    The model sees the newest frames, as far apart as in training, or over ``window`` seconds. If it
    takes longer than ``stride``, the next answer follows at once, and frames in between are
    dropped. The first answer comes when the window is full; a stream that is shorter gets one at
    its end.

    Args:
        predictor: a classifier.
        source: ``camera:N``, or an address of RTSP or HTTP; or how to open another device.
        stride: seconds of time from one answer to the next, at least.
        window: seconds of a clip; None: as in training.

    Raises:
        VideoDecodeError: the stream cannot be opened, or fails.
        ValueError: ``stride`` or ``window`` is not positive, or a window is missing.
    """
    clip = predictor.clip
    step = window_step(clip, stride, window)
    ages = np.arange(clip.num_frames)[::-1] * step  # of the frames of a clip
    opening = opening_of(source) if isinstance(source, str) else source
    name = source if isinstance(source, str) else source.file
    prepare = partial(central_crop, clip=clip)
    return _answers(predictor, LiveFrames(name, opening, float(ages[0]), prepare), ages, stride)


def _answers(
    predictor: Predictor, live: LiveFrames, ages: np.ndarray, stride: float
) -> Iterator[LiveAnswer]:
    last, due = -1.0, time.monotonic()
    with live as frames:
        while (newest := frames.newest(ages, last)) is not None:
            probabilities = predictor.probabilities_of_clip(np.stack(newest.pictures))
            now, last = time.monotonic(), newest.time
            yield LiveAnswer(newest.time, probabilities, now - newest.arrived, newest.dropped)
            due = max(due + stride, time.monotonic())
            frames.wait(due)


def central_crop(picture: np.ndarray, clip: ClipFormat) -> np.ndarray:
    """Scale a picture and cut out its centre, as the one spatial view of a video.

    Args:
        picture: uint8 ``(height, width, 3)``.
        clip: format of a clip.

    Returns:
        uint8 ``(H, W, 3)``.
    """
    height, width = clip.scaled_size(picture.shape[1], picture.shape[0])
    scaled = np.empty((height, width, 3), np.uint8)
    scale(picture, scaled, clip.interpolation)
    ((x1, y1, x2, y2),) = view_crops(width, height, clip.width, clip.height, 1)
    return scaled[y1:y2, x1:x2].copy()
