"""What the persons before a camera do, as it goes on."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from datamodules.clips.sampling import keyframe_times
from datamodules.clips.windows import window_step
from datamodules.video.decoding import scale
from datamodules.video.live import LiveFrames, Newest
from datamodules.video.live_source import Opening
from hiera_video.predicting.actions import ActionPredictor
from hiera_video.predicting.live import followed, opened
from hiera_video.predicting.moments import Person, labelled
from hiera_video.predicting.persons import PersonSource, SeesPersons

KEPT_SHORT_SIDE = 480  # pixels of the pictures in memory, in which persons are detected


class LiveActions(NamedTuple):
    """What is predicted for the newest frames.

    Attributes:
        time: seconds from the first frame of the stream to the one in which persons are found, the
            middle one of the clip.
        persons: with the best actions of each.
        latency: seconds from the moment the newest frame was decoded to the answer.
        dropped: frames so far that the model has not seen, and will not see.
    """

    time: float
    persons: list[Person]
    latency: float
    dropped: int


def live_actions(
    predictor: ActionPredictor,
    source: str | Opening,
    boxes: str | Path | PersonSource = "detector",
    stride: float = 1.0,
    least: float = 0.0,
    top: int | None = None,
) -> Iterator[LiveActions]:
    """Name the actions of persons before a camera until it ends.

    The model sees the newest frames, as far apart as in training. Persons are found in the middle
    one of them, whose surroundings on both sides decide what they do, as in AVA. All else is as in
    `live_answers`.

    Args:
        predictor: an action detector.
        source: ``camera:N``, or an address of RTSP or HTTP; or how to open another device.
        boxes: ``detector``, ``full_frame`` or a run; for other settings, what `person_source`
            returned.
        stride: seconds of time from one answer to the next, at least.
        least: score below which an action is left out, in [0, 1].
        top: at most so many actions of each person; None: no limit.

    Raises:
        VideoDecodeError: the stream cannot be opened, or fails.
        CheckpointError: the detector's weights cannot be downloaded or read.
        ValueError: ``stride`` is not positive, or boxes come from a file.
    """
    clip = predictor.clip
    window_step(clip, stride)  # refuses a wrong stride
    persons = predictor.persons(boxes)
    if not isinstance(persons, SeesPersons):
        raise ValueError(
            "boxes of a file are of videos; live, use detector or full_frame, or a run of instance "
            "segmentation"
        )
    middle = clip.num_frames // 2
    times = keyframe_times(0.0, clip.num_frames, clip.stride, clip.fps)
    ages = times[-1] - times
    live = LiveFrames(*opened(source), float(ages[0]), _smaller)

    def answer(newest: Newest) -> LiveActions:
        people = persons.in_picture(newest.pictures[middle])
        scores = predictor.scorer.scores_of_clip(newest.pictures, people)
        found = labelled(people, scores, predictor.class_names, least, top)
        latency = time.monotonic() - newest.arrived
        return LiveActions(newest.time - float(ages[middle]), found, latency, newest.dropped)

    return followed(live, ages, stride, answer)


def _smaller(picture: np.ndarray) -> np.ndarray:
    """A picture whose short side is at most `KEPT_SHORT_SIDE`."""
    height, width = picture.shape[:2]
    factor = KEPT_SHORT_SIDE / min(height, width)
    if factor >= 1:
        return picture.copy()
    out = np.empty((round(height * factor), round(width * factor), 3), np.uint8)
    scale(picture, out)
    return out
