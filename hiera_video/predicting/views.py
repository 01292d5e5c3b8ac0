"""One video view by view: what a classifier says about each, and about all together."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from datamodules.clips.format import ClipFormat
from datamodules.clips.sampling import last_frame_time
from datamodules.clips.videos import clips_of_views
from datamodules.video.decoding import VideoFile
from datamodules.video.pictures import PictureFile
from hiera_video.metrics.top_classes import Prediction, top_classes
from hiera_video.predicting.batches import ClipNetwork, batches
from hiera_video.visualize.views import answers_picture, places_picture


class View(NamedTuple):
    """A row of the table of views.

    Attributes:
        temporal: index of the moment.
        spatial: index of the crop.
        start: time of its first frame, seconds.
        end: time of its last frame, seconds.
        box: the crop: x1, y1, x2, y2 in [0, 1] of the frame.
        predictions: its most probable classes, the best first.
    """

    temporal: int
    spatial: int
    start: float
    end: float
    box: tuple[float, float, float, float]
    predictions: list[Prediction]


class VideoViews(NamedTuple):
    """The views of a video: N moments with S crops each.

    Attributes:
        duration: of the video, seconds.
        times: of the frames of each moment, float64 ``(N, T)``, seconds, within the video.
        boxes: of the crops: x1, y1, x2, y2 in [0, 1] of the frame, float64 ``(S, 4)``.
        frames: the whole picture in the middle of each moment, uint8 ``(N, height, width, 3)``.
        clips: what the model sees, uint8 ``(N, S, T, H, W, 3)``.
        probabilities: float32 ``(N, S, classes)``; the sum over the classes is 1.
        class_names: in the order of the probabilities.
    """

    duration: float
    times: np.ndarray
    boxes: np.ndarray
    frames: np.ndarray
    clips: np.ndarray
    probabilities: np.ndarray
    class_names: Sequence[str]

    def average(self, top: int = 5) -> list[Prediction]:
        """The most probable classes of the average of all views, as `Predictor.predict`."""
        views = self.probabilities.reshape(-1, len(self.class_names))  # (N * S, classes)
        return top_classes(torch.from_numpy(views), self.class_names, top)

    def table(self, top: int = 5) -> Iterator[View]:
        """The views one after the other, the crop varying fastest.

        Args:
            top: at most so many classes of each.
        """
        moments, crops = self.probabilities.shape[:2]
        for t, s in product(range(moments), range(crops)):
            x1, y1, x2, y2 = self.boxes[s].tolist()
            view = torch.from_numpy(self.probabilities[t, s][None])  # (1, classes)
            best = top_classes(view, self.class_names, top)
            start, end = float(self.times[t, 0]), float(self.times[t, -1])
            yield View(t, s, start, end, (x1, y1, x2, y2), best)

    def places(self) -> Image.Image:
        """Draw where the views are: the crops on frames, and the moments on the timeline."""
        return places_picture(self.frames, self.boxes, self.times, self.duration)

    def answers(self, top: int = 5) -> Image.Image:
        """Draw the middle frame of each view with its most probable classes, and the average.

        Args:
            top: at most so many classes.
        """
        middle = self.clips[:, :, self.clips.shape[2] // 2]  # (N, S, H, W, 3)
        return answers_picture(middle, self.probabilities, self.class_names, top)


def views_of_video(
    network: ClipNetwork,
    file: VideoFile | PictureFile,
    clip: ClipFormat,
    class_names: Sequence[str],
    views: tuple[int, int],
) -> VideoViews:
    """See and classify each view of a video.

    Args:
        network: a classifier.
        file: the video, or a picture, which is a video of one frame.
        clip: what the model sees.
        class_names: in the order of the logits.
        views: numbers of temporal and spatial views.

    Raises:
        VideoDecodeError: the file is damaged.
    """
    moments, crops = views
    clips = clips_of_views(file, clip, moments, crops)  # (N * S, T, H, W, 3)
    logits = torch.cat([network.logits(batch) for _, batch in batches(clips)])
    rate = float(file.rate)
    times = np.stack(clip.view_times(file.duration, rate, moments))  # (N, T)
    height, width = size = clip.scaled_size(file.width, file.height)
    boxes = np.array(clip.view_boxes(width, height, crops), np.float64)
    middles = times[:, clip.num_frames // 2]
    return VideoViews(
        file.duration,
        times.clip(0, last_frame_time(file.duration, rate)),  # after that, clips repeat the frame
        boxes / [width, height, width, height],
        file.frames_at(middles, size, interpolation=clip.interpolation),
        clips.reshape(moments, crops, *clip.shape),
        logits.softmax(dim=1).reshape(moments, crops, -1).numpy(),
        class_names,
    )
