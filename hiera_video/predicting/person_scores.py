"""The scores of persons in clips of their surroundings, for an action detector."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from datamodules.ava.clips import evaluated_size
from datamodules.clips.format import ClipFormat
from datamodules.clips.sampling import keyframe_times
from datamodules.video.decoding import VideoFile, scale
from hiera_video.predicting.batches import ClipNetwork, batches
from hiera_video.predicting.crops import boxes_in_crops, crops_over
from hiera_video.predicting.persons import PersonBoxes


class PersonViews(NamedTuple):
    """What the model sees of the persons of S clips.

    Attributes:
        clips: uint8 ``(T, H, W, 3)`` each.
        boxes: of the persons of each of S, in [0, 1] of their clips, float64 ``(n, 4)``.
        box_clip: the index of the clip of each of all N boxes, int64 ``(N,)``.
    """

    clips: list[np.ndarray]
    boxes: list[np.ndarray]
    box_clip: np.ndarray


class PersonScorer:
    """Scores all actions of persons.

    A clip is scaled as in evaluation. Evaluation sees only the centre of the picture; here, crops
    cover all of it, so that everybody narrower than half a crop is whole in one of them. Each
    person is scored in the crop that holds most of the box; if several do, in the one nearest to
    the centre.

    Args:
        network: an action detector; see `ActionPredictor`.
        num_classes: that it scores.
        clip: what it sees of a video.
        times_person_score: multiply each action's score by the person's score.
        short_side: pixels to which the short side is scaled; None: so that a crop just fits in.
        pad: instead of crops, height and width to which the whole picture is padded.

    Attributes:
        times_person_score: as given; so are ``short_side`` and ``pad``.
    """

    def __init__(
        self,
        network: ClipNetwork,
        num_classes: int,
        clip: ClipFormat,
        times_person_score: bool = False,
        short_side: int | None = None,
        pad: tuple[int, int] | None = None,
    ) -> None:
        self._network, self._num_classes, self._clip = network, num_classes, clip
        self.times_person_score, self.short_side, self.pad = times_person_score, short_side, pad

    def scores(
        self, file: VideoFile, seconds: Sequence[int], people: Sequence[PersonBoxes]
    ) -> list[np.ndarray]:
        """Score the persons of several seconds of a video.

        Args:
            file: the video.
            seconds: when they are there.
            people: N persons of each second.

        Returns:
            float32 ``(N, classes)`` in [0, 1] of each second.

        Raises:
            VideoDecodeError: the file is damaged.
        """
        scores = [np.empty((0, self._num_classes), np.float32) for _ in seconds]
        busy = [i for i, persons in enumerate(people) if len(persons.boxes)]
        if not busy:
            return scores
        present = [people[i] for i in busy]
        views = self.views(self.pictures(file, [seconds[i] for i in busy]), present)
        for i, part in zip(busy, self.scores_in(views, present), strict=True):
            scores[i] = part
        return scores

    def scores_of_clip(self, pictures: Sequence[np.ndarray], people: PersonBoxes) -> np.ndarray:
        """Score the persons of one clip.

        Args:
            pictures: its frames, the newest last, uint8 ``(height, width, 3)`` each.
            people: N persons in its middle frame, number ``num_frames // 2``.

        Returns:
            float32 ``(N, classes)`` in [0, 1].
        """
        if not len(people.boxes):
            return np.empty((0, self._num_classes), np.float32)
        height, width = pictures[0].shape[:2]
        size = evaluated_size(width, height, self._clip, self.short_side, self.pad)
        scaled = np.empty((1, len(pictures), *size, 3), np.uint8)
        for picture, out in zip(pictures, scaled[0], strict=True):
            scale(picture, out, self._clip.interpolation)
        return self.scores_in(self.views(scaled, [people]), [people])[0]

    def views(self, pictures: np.ndarray, people: Sequence[PersonBoxes]) -> PersonViews:
        """Crop what the model sees of persons.

        Args:
            pictures: of S clips, uint8 ``(S, T, H, W, 3)``.
            people: the persons of each clip, at least one.
        """
        height, width = pictures.shape[2:4]
        view_height, view_width = self.pad or (self._clip.height, self._clip.width)
        crops = crops_over(width, height, view_width, view_height)
        clips: list[np.ndarray] = []
        boxes, box_clip = [], []
        for persons, frames in zip(people, pictures, strict=True):
            chosen, inside = boxes_in_crops(persons.boxes, crops, width, height)
            used, which = np.unique(chosen, return_inverse=True)
            boxes.append(inside)
            box_clip.append(len(clips) + which)
            for x1, y1, x2, y2 in (crops[k] for k in used):
                view = np.zeros((len(frames), view_height, view_width, 3), np.uint8)
                view[:, :height, :width] = frames[:, y1:y2, x1:x2]
                clips.append(view)
        return PersonViews(clips, boxes, np.concatenate(box_clip))

    def pictures(self, file: VideoFile, seconds: Sequence[int]) -> np.ndarray:
        """Frames around each second, timed and scaled as in evaluation: ``(S, T, H, W, 3)``."""
        clip = self._clip
        height, width = evaluated_size(file.width, file.height, clip, self.short_side, self.pad)
        times = [keyframe_times(s, clip.num_frames, clip.stride, clip.fps) for s in seconds]
        size, times = (height, width), np.concatenate(times)
        frames = file.frames_at(times, size, interpolation=clip.interpolation)
        return frames.reshape(len(seconds), clip.num_frames, height, width, 3)  # (S, T, H, W, 3)

    def scores_in(self, views: PersonViews, people: Sequence[PersonBoxes]) -> list[np.ndarray]:
        """Score persons in their views.

        Args:
            views: of the persons of S clips.
            people: the same persons.

        Returns:
            float32 ``(n, classes)`` in [0, 1] of each of S.
        """
        boxes, box_clip = np.concatenate(views.boxes), views.box_clip
        rows = np.empty((len(boxes), self._num_classes), np.float32)
        for start, batch in batches(views.clips):
            inside = (start <= box_clip) & (box_clip < start + len(batch))
            logits = self._network.logits(
                batch,
                boxes=torch.from_numpy(boxes[inside]).float(),
                box_clip=torch.from_numpy(box_clip[inside] - start),
            )
            rows[inside] = logits.sigmoid().numpy()
        if self.times_person_score:
            rows *= np.concatenate([persons.scores for persons in people], dtype=rows.dtype)[
                :, None
            ]
        return np.split(rows, np.cumsum([len(part) for part in views.boxes])[:-1])
