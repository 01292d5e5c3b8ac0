"""Who does what in a video, once a second.

A file of any length is read forwards, some seconds at a time; nothing is kept of those before.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.ava.clips import evaluated_size
from datamodules.clips.boxes import Box, clip_boxes, crop_boxes, visible_shares
from datamodules.clips.sampling import keyframe_times
from datamodules.clips.videos import ClipFormat
from datamodules.video.decoding import VideoFile
from hiera_video.augment.basic import Normalize
from hiera_video.predicting.persons import PersonBoxes, PersonSource

SECONDS_AT_ONCE, CLIPS_AT_ONCE = 8, 8  # that are decoded, and that the model sees, together

Network = Callable[[Tensor, Tensor, Tensor], Tensor]


class Moment(NamedTuple):
    """What the persons of a frame do.

    Attributes:
        second: when, from the start of the video.
        persons: their boxes in the full frame.
        scores: of all actions, in [0, 1], float32 ``(N, classes)``.
    """

    second: int
    persons: PersonBoxes
    scores: np.ndarray


class ActionPredictor:
    """Scores the actions of persons in videos.

    A clip is scaled as in evaluation. Where evaluation sees the centre of the picture alone, here
    crops are laid all over it, so that whoever is narrower than half a crop is whole in one of
    them; each person is scored in the crop that holds most of the box, where equal in the one
    nearest to the centre.

    Args:
        network: normalised float ``(B, 3, T, H, W)``, boxes ``(N, 4)`` in [0, 1] of the clip and
            the clip of each, int64 ``(N,)``, to logits ``(N, classes)``.
        class_names: of the logits.
        clip: what it sees of a video.
        persons: where persons are.
        action_ids: of the classes in AVA's files; None: 1, 2, 3, ...
        normalize: from uint8 to what it takes.
        times_person_score: multiply each action's score by that of the person.
        short_side: pixels to which the short side is scaled; None: so that a crop just fits in.
        pad: instead of crops, height and width to which the whole picture is padded.
        device: of network and `normalize`.
    """

    def __init__(
        self,
        network: Network,
        class_names: Sequence[str],
        clip: ClipFormat,
        persons: PersonSource,
        action_ids: Sequence[int] | None = None,
        normalize: Normalize | None = None,
        times_person_score: bool = False,
        short_side: int | None = None,
        pad: tuple[int, int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.network, self.class_names, self.clip = network, tuple(class_names), clip
        self.action_ids = tuple(action_ids or range(1, len(self.class_names) + 1))
        self.persons, self.times_person_score = persons, times_person_score
        self.short_side, self.pad = short_side, pad
        self.device = torch.device(device)
        self.normalize = (normalize or Normalize()).to(self.device)

    def seconds(self, file: VideoFile) -> list[int]:
        """When it looks at a video, ascending.

        Raises:
            DatasetError: the persons of this video are not known.
        """
        return self.persons.seconds(file.path, file.duration)

    def moments(self, file: VideoFile, seconds: Sequence[int]) -> Iterator[Moment]:
        """What is seen in a video at some of its `seconds`.

        Raises:
            VideoDecodeError: the file is damaged.
        """
        for start in range(0, len(seconds), SECONDS_AT_ONCE):
            some = seconds[start : start + SECONDS_AT_ONCE]
            persons = self.persons.at(file, some)
            scores = self._scores(file, some, persons)
            yield from map(Moment, some, persons, scores)

    def _scores(
        self, file: VideoFile, seconds: Sequence[int], persons: Sequence[PersonBoxes]
    ) -> list[np.ndarray]:
        """Float32 ``(N, classes)`` of the persons of each second."""
        busy = [i for i, found in enumerate(persons) if len(found.boxes)]
        scores = [np.empty((0, len(self.class_names)), np.float32) for _ in seconds]
        if not busy:
            return scores
        clip = self.clip
        height, width = evaluated_size(file.width, file.height, clip, self.short_side, self.pad)
        view_height, view_width = self.pad or (clip.height, clip.width)
        crops = crops_over(width, height, view_width, view_height)
        times = np.concatenate([self._times(seconds[i]) for i in busy])
        frames = file.frames_at(times, size=(height, width))
        frames = frames.reshape(len(busy), clip.num_frames, height, width, 3)
        clips: list[np.ndarray] = []
        boxes, box_clip = [], []
        for i, shown in zip(busy, frames, strict=True):
            chosen, inside = boxes_in_crops(persons[i].boxes, crops, width, height)
            used, which = np.unique(chosen, return_inverse=True)
            boxes.append(inside)
            box_clip.append(len(clips) + which)
            for x1, y1, x2, y2 in (crops[k] for k in used):
                view = np.zeros((len(shown), view_height, view_width, 3), np.uint8)
                view[:, :height, :width] = shown[:, y1:y2, x1:x2]
                clips.append(view)
        found = self._run(clips, np.concatenate(boxes), np.concatenate(box_clip))
        ends = np.cumsum([len(part) for part in boxes])[:-1]
        for i, part in zip(busy, np.split(found, ends), strict=True):
            scores[i] = part
            if self.times_person_score:
                scores[i] = part * persons[i].scores[:, None].astype(np.float32)
        return scores

    def _times(self, second: int) -> np.ndarray:
        """Of the frames of a clip, as in evaluation."""
        clip = self.clip
        return keyframe_times(second, clip.num_frames, clip.stride, clip.fps)

    @torch.inference_mode()
    def _run(
        self, clips: Sequence[np.ndarray], boxes: np.ndarray, box_clip: np.ndarray
    ) -> np.ndarray:
        """Score boxes ``(N, 4)`` of clips uint8 ``(T, H, W, 3)``; ``box_clip`` says of which.

        Returns:
            Float32 ``(N, classes)`` in [0, 1].
        """
        scores = np.empty((len(boxes), len(self.class_names)), np.float32)
        for start in range(0, len(clips), CLIPS_AT_ONCE):
            some = np.stack(clips[start : start + CLIPS_AT_ONCE])
            video = torch.from_numpy(some).permute(0, 4, 1, 2, 3).to(self.device)  # (B, 3, T, H, W)
            here = (start <= box_clip) & (box_clip < start + len(some))
            inside = torch.from_numpy(boxes[here]).float().to(self.device)
            clip = torch.from_numpy(box_clip[here] - start).to(self.device)
            logits = self.network(self.normalize(video), inside, clip)
            scores[here] = logits.float().sigmoid().cpu().numpy()
        return scores


def crops_over(width: int, height: int, crop_width: int, crop_height: int) -> list[Box]:
    """Crops all over a picture, at equal steps of at most half a crop.

    Returns:
        x1, y1, x2, y2 in pixels, those nearest to the centre first.
    """
    xs, ys = _starts(width, crop_width), _starts(height, crop_height)
    crops = [(x, y, x + crop_width, y + crop_height) for y in ys for x in xs]

    def from_centre(crop: Box) -> int:
        x1, y1, x2, y2 = crop
        return (x1 + x2 - width) ** 2 + (y1 + y2 - height) ** 2

    return sorted(crops, key=from_centre)


def _starts(length: int, crop: int) -> list[int]:
    """Where crops begin along one side: an odd number of them, so that one is the centre."""
    steps = 2 * math.ceil(max(0, length - crop) / crop)
    return [math.ceil((length - crop) * i / steps) for i in range(steps + 1)] if steps else [0]


def boxes_in_crops(
    boxes: np.ndarray, crops: Sequence[Box], width: int, height: int
) -> tuple[np.ndarray, np.ndarray]:
    """Choose a crop for each box: the first of those that hold most of it.

    Args:
        boxes: x1, y1, x2, y2 in [0, 1] of the picture, float64 ``(N, 4)``.
        crops: the same in pixels of the picture.
        width: of the picture, pixels.
        height: the same.

    Returns:
        int64 ``(N,)``, the chosen crop; float64 ``(N, 4)``, the boxes in [0, 1] of it, cut off at
        its border.
    """
    moved = np.stack([crop_boxes(boxes, crop, width, height) for crop in crops])  # (crops, N, 4)
    shares = np.stack([visible_shares(some) for some in moved]).round(6)
    chosen = shares.argmax(axis=0)
    return chosen, clip_boxes(moved[chosen, np.arange(len(boxes))])
