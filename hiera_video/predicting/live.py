"""The classes of a camera or a stream, as it goes on."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple, TypeVar

import numpy as np

from datamodules.clips.format import ClipFormat
from datamodules.clips.windows import window_step
from datamodules.video.decoding import scale
from datamodules.video.live import LiveFrames, Newest
from datamodules.video.live_source import Opening, opening_of
from hiera_video.predicting.classifier import Predictor

Answer = TypeVar("Answer")


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
    name, opening = opened(source)
    live = LiveFrames(name, opening, float(ages[0]), partial(central_crop, clip=clip))

    def answer(newest: Newest) -> LiveAnswer:
        probabilities = predictor.probabilities_of_clip(np.stack(newest.pictures))
        latency = time.monotonic() - newest.arrived
        return LiveAnswer(newest.time, probabilities, latency, newest.dropped)

    return followed(live, ages, stride, answer)


def opened(source: str | Opening) -> tuple[str, Opening]:
    """Name of a camera or a stream, and how to open it.

    Raises:
        ValueError: as `opening_of`.
    """
    return (source, opening_of(source)) if isinstance(source, str) else (source.file, source)


def followed(
    live: LiveFrames, ages: np.ndarray, stride: float, answer: Callable[[Newest], Answer]
) -> Iterator[Answer]:
    """Answer to the newest frames of a stream, again and again until it ends.

    Args:
        live: reads the stream.
        ages: of the frames of a clip, seconds before the newest one.
        stride: seconds of time from one answer to the next, at least.
        answer: what is made of the frames.

    Raises:
        VideoDecodeError: the stream cannot be opened, or fails.
    """
    last, due = -1.0, time.monotonic()
    with live as frames:
        while (newest := frames.newest(ages, last)) is not None:
            last = newest.time
            yield answer(newest)
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
    ((x1, y1, x2, y2),) = clip.view_boxes(width, height, 1)
    return scaled[y1:y2, x1:x2].copy()
