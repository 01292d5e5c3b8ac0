"""Who does what in a video, once a second: what `load` gives for an action detector.

A file of any length is read forwards, some seconds at a time; earlier ones are not kept.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from datamodules.ava.clips import evaluated_size
from datamodules.clips.boxes import Box, clip_boxes, crop_boxes, visible_shares
from datamodules.clips.sampling import keyframe_times
from datamodules.clips.videos import ClipFormat
from datamodules.video.decoding import VideoFile
from hiera_video.augment.basic import Normalize
from hiera_video.predicting.batches import ClipNetwork, batches
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from hiera_video.predicting.moments import Moment, Second
from hiera_video.predicting.persons import PersonBoxes, PersonSource, person_source
from hiera_video.results.embedding_files import Embedding

SECONDS_AT_ONCE = 8  # decoded together


class ActionPredictor:
    """Scores the actions of persons in videos.

    A clip is scaled as in evaluation. Evaluation sees only the centre of the picture; here, crops
    cover all of it, so that everybody narrower than half a crop is whole in one of them. Each
    person is scored in the crop that holds most of the box; if several do, in the one nearest to
    the centre.

    Args:
        model: an action detector: ``video``, normalised float ``(B, 3, T, H, W)``, ``boxes``
            float ``(N, 4)`` in [0, 1] of their clips and ``box_clip`` int64 ``(N,)``, the clip of
            each, to logits ``(N, classes)``.
        class_names: in the order of the logits.
        clip: what the model sees of a video.
        action_ids: numbers of the classes in AVA's files; None or empty: 1, 2, 3, ...
        normalize: from uint8 to what the model takes.
        times_person_score: multiply each action's score by the person's score.
        short_side: pixels to which the short side is scaled; None: so that a crop just fits in.
        pad: instead of crops, height and width to which the whole picture is padded.
        device: None: a GPU if there is one.
        precision: as in `ClipNetwork`.

    Attributes:
        class_names: a tuple.
        action_ids: a tuple, of the same length.
        clip: as given.
        device: where the model is.
        model: in evaluation mode.
        encoder: computes features of whole pictures, without boxes.

    Raises:
        ValueError: no such precision.
    """

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        clip: ClipFormat,
        action_ids: Sequence[int] | None = None,
        normalize: Normalize | None = None,
        times_person_score: bool = False,
        short_side: int | None = None,
        pad: tuple[int, int] | None = None,
        device: torch.device | str | None = None,
        precision: str = "32-true",
    ) -> None:
        self._network = ClipNetwork(model, normalize, device, precision)
        self.model, self.device = self._network.network, self._network.device
        self.class_names, self.clip = tuple(class_names), clip
        self.action_ids = tuple(action_ids or range(1, len(self.class_names) + 1))
        self.times_person_score, self.short_side, self.pad = times_person_score, short_side, pad
        self._detector: PersonSource | None = None
        height, width = pad or (clip.height, clip.width)
        whole_clip = clip._replace(height=height, width=width)
        self.encoder = VideoEncoder(self._network, whole_clip)

    def predict(
        self, video: str | Path, boxes: str | Path | PersonSource = "detector", top: int = 5
    ) -> list[Second]:
        """The most probable actions of each person, second by second.

        Args:
            video: a file.
            boxes: ``detector``, ``full_frame`` or a csv of person boxes, with persons that score at
                least 0.8; for other settings, what `person_source` returned.
            top: at most so many actions of each person.

        Returns:
            ``[Second(second, [Person(box, score, [Action(label, score), ...]), ...]), ...]``.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            DatasetError: there are no such boxes, or none in this video.
            CheckpointError: the detector's weights cannot be downloaded or read.
            ValueError: ``top`` is not positive.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, not {top}")
        persons = self._persons(boxes)
        with VideoFile(video) as file:
            seconds = persons.seconds(file.path, file.duration)
            moments = self.moments(file, persons, seconds)
            return [moment.labelled(self.class_names, top=top) for moment in moments]

    def embed(self, video: str | Path, **options: Any) -> Embedding:
        """Features of whole pictures, without boxes, of the clip's size in the centre.

        Arguments, result and errors are those of `Reconstructor.embed`.
        """
        return self.encoder.embed(video, EmbeddingOptions(**options))

    def _persons(self, boxes: str | Path | PersonSource) -> PersonSource:
        """The source of boxes; the detector is loaded once."""
        if not isinstance(boxes, str | Path):
            return boxes
        if boxes != "detector":
            return person_source(str(boxes))
        if self._detector is None:
            self._detector = person_source("detector", device=self.device)
        return self._detector

    def moments(
        self, file: VideoFile, persons: PersonSource, seconds: Sequence[int]
    ) -> Iterator[Moment]:
        """The scores of a video's persons.

        Args:
            file: the video.
            persons: finds them.
            seconds: when to look, ascending; some of ``persons.seconds(...)``.

        Raises:
            VideoDecodeError: the file is damaged.
        """
        for start in range(0, len(seconds), SECONDS_AT_ONCE):
            chunk = seconds[start : start + SECONDS_AT_ONCE]
            people = persons.at(file, chunk)
            yield from map(Moment, chunk, people, self._scores(file, chunk, people))

    def _scores(
        self, file: VideoFile, seconds: Sequence[int], people: Sequence[PersonBoxes]
    ) -> list[np.ndarray]:
        """Float32 ``(N, classes)`` of the N persons of each second."""
        scores = [np.empty((0, len(self.class_names)), np.float32) for _ in seconds]
        busy = [i for i, persons in enumerate(people) if len(persons.boxes)]
        if not busy:
            return scores
        pictures = self._pictures(file, [seconds[i] for i in busy])
        height, width = pictures.shape[2:4]
        view_height, view_width = self.pad or (self.clip.height, self.clip.width)
        crops = crops_over(width, height, view_width, view_height)
        clips: list[np.ndarray] = []
        boxes, box_clip = [], []
        for i, frames in zip(busy, pictures, strict=True):
            chosen, inside = boxes_in_crops(people[i].boxes, crops, width, height)
            used, which = np.unique(chosen, return_inverse=True)
            boxes.append(inside)
            box_clip.append(len(clips) + which)
            for x1, y1, x2, y2 in (crops[k] for k in used):
                view = np.zeros((len(frames), view_height, view_width, 3), np.uint8)
                view[:, :height, :width] = frames[:, y1:y2, x1:x2]
                clips.append(view)
        rows = self._score_boxes(clips, np.concatenate(boxes), np.concatenate(box_clip))
        ends = np.cumsum([len(part) for part in boxes])[:-1]
        for i, part in zip(busy, np.split(rows, ends), strict=True):
            scores[i] = part
            if self.times_person_score:
                scores[i] = part * people[i].scores[:, None].astype(np.float32)
        return scores

    def _pictures(self, file: VideoFile, seconds: Sequence[int]) -> np.ndarray:
        """Frames around each second, timed and scaled as in evaluation: ``(S, T, H, W, 3)``."""
        clip = self.clip
        height, width = evaluated_size(file.width, file.height, clip, self.short_side, self.pad)
        times = [keyframe_times(s, clip.num_frames, clip.stride, clip.fps) for s in seconds]
        frames = file.frames_at(np.concatenate(times), size=(height, width))
        return frames.reshape(len(seconds), clip.num_frames, height, width, 3)  # (S, T, H, W, 3)

    def _score_boxes(
        self, clips: Sequence[np.ndarray], boxes: np.ndarray, box_clip: np.ndarray
    ) -> np.ndarray:
        """Score boxes.

        Args:
            clips: uint8 ``(T, H, W, 3)`` each.
            boxes: float64 ``(N, 4)`` in [0, 1] of their clips.
            box_clip: int64 ``(N,)``, the index of the clip of each.

        Returns:
            float32 ``(N, classes)`` in [0, 1].
        """
        scores = np.empty((len(boxes), len(self.class_names)), np.float32)
        for start, batch in batches(clips):
            rows = (start <= box_clip) & (box_clip < start + len(batch))
            logits = self._network.logits(
                batch,
                boxes=torch.from_numpy(boxes[rows]).float(),
                box_clip=torch.from_numpy(box_clip[rows] - start),
            )
            scores[rows] = logits.sigmoid().numpy()
        return scores


def crops_over(width: int, height: int, crop_width: int, crop_height: int) -> list[Box]:
    """Crops all over a picture, at equal steps of at most half a crop.

    Args:
        width: width of the picture, pixels.
        height: height of the picture, pixels.
        crop_width: width of a crop, pixels.
        crop_height: height of a crop, pixels.

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
        crops: x1, y1, x2, y2 in pixels of the picture.
        width: width of the picture, pixels.
        height: height of the picture, pixels.

    Returns:
        int64 ``(N,)``, the index of each box's crop; float64 ``(N, 4)``, the boxes in [0, 1] of
        their crops, cut off at the border.
    """
    moved = np.stack([crop_boxes(boxes, crop, width, height) for crop in crops])  # (crops, N, 4)
    shares = np.stack([visible_shares(inside) for inside in moved]).round(6)
    chosen = shares.argmax(axis=0)
    return chosen, clip_boxes(moved[chosen, np.arange(len(boxes))])
