"""Who does what in a video, once a second: what `load` gives for an action detector.

A file of any length is read forwards, some seconds at a time; earlier ones are not kept.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.ava.clips import evaluated_size
from datamodules.clips.sampling import keyframe_times
from datamodules.clips.videos import ClipFormat
from datamodules.video.decoding import VideoFile, scale
from hiera_video.augment.basic import Normalize
from hiera_video.errors import ChoiceError
from hiera_video.predicting.batches import ClipNetwork, batches
from hiera_video.predicting.crops import boxes_in_crops, crops_over
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from hiera_video.predicting.moments import Moment, Second, second_with_persons
from hiera_video.predicting.persons import (
    PersonBoxes,
    PersonDetector,
    PersonSource,
    person_source,
)
from hiera_video.predicting.saliency import (
    Saliency,
    Show,
    check_method,
    class_index,
    saliency_map,
    silent,
)
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
        self._detectors: dict[str, PersonDetector] = {}  # by what ``boxes`` named
        height, width = pad or (clip.height, clip.width)
        whole_clip = clip._replace(height=height, width=width)
        self.encoder = VideoEncoder(self._network, whole_clip)

    def predict(
        self, video: str | Path, boxes: str | Path | PersonSource = "detector", top: int = 5
    ) -> list[Second]:
        """The most probable actions of each person, second by second.

        Args:
            video: a file.
            boxes: ``detector``, ``full_frame``, a csv of person boxes or a run of instance
                segmentation, with persons that score at least 0.8; for other settings, what
                `person_source` returned.
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
        persons = self.persons(boxes)
        with VideoFile(video) as file:
            seconds = persons.seconds(file.path, file.duration)
            moments = self.moments(file, persons, seconds)
            return [moment.labelled(self.class_names, top=top) for moment in moments]

    def saliency(
        self,
        video: str | Path,
        label: str | None = None,
        method: str = "grad_cam",
        second: float | None = None,
        boxes: str | Path | PersonSource = "detector",
        person: int | None = None,
        stage: int | None = None,
        cuboid: Sequence[int] | None = None,
        show: Show = silent,
    ) -> Saliency:
        """Where in the clip around one person the model sees an action of that person.

        Args:
            video: a file.
            label: the action; None: that with the highest score.
            method: as in `Predictor.saliency`, and so are ``stage``, ``cuboid`` and ``show``.
            second: a whole second; None: that with a person which is nearest to the middle.
            boxes: as in `predict`.
            person: the index of the person among those of the second, as in `predict`; None: whose
                score is the highest.
            stage: see ``method``.
            cuboid: see ``method``.
            show: see ``method``.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            DatasetError: there are no such boxes, or none in this video.
            CheckpointError: the detector's weights cannot be downloaded or read.
            ChoiceError: a ValueError: no such action, method, second, person, stage or cuboid.
        """
        check_method(method, stage, cuboid)
        wanted = None if label is None else class_index(self.class_names, label)
        persons = self.persons(boxes)
        with VideoFile(video) as file:
            when, people = second_with_persons(file, persons, second)
            views, (inside,), box_view = self._views(self._pictures(file, [when]), [people])
        scores = self._score_boxes(views, inside, box_view)  # (N, classes)
        if self.times_person_score:
            scores = scores * people.scores[:, None]
        if person is not None and not 0 <= person < len(scores):
            raise ChoiceError(
                f"{video}: no person {person} at second {when}; there are 0 to {len(scores) - 1}"
            )
        rows = range(len(scores)) if person is None else [person]
        columns = range(len(self.class_names)) if wanted is None else [wanted]
        row, column = max(product(rows, columns), key=lambda place: scores[place])
        box, clip = torch.from_numpy(inside[row]).float(), views[box_view[row]]

        def inputs(copies: int) -> dict[str, Tensor]:
            return {"boxes": box.expand(copies, 4), "box_clip": torch.arange(copies)}

        heat, peak = saliency_map(
            self._network, clip, column, torch.sigmoid, inputs, method, stage, cuboid, show
        )
        x1, y1, x2, y2 = inside[row].tolist()
        label, score = self.class_names[column], float(scores[row, column])
        times = keyframe_times(when, self.clip.num_frames, self.clip.stride, self.clip.fps)
        return Saliency(clip, heat, peak, label, score, method, times, (x1, y1, x2, y2))

    def embed(self, video: str | Path, **options: Any) -> Embedding:
        """Features of whole pictures, without boxes, of the clip's size in the centre.

        Arguments, result and errors are those of `Reconstructor.embed`.
        """
        return self.encoder.embed(video, EmbeddingOptions(**options))

    def persons(self, boxes: str | Path | PersonSource) -> PersonSource:
        """The source that ``boxes`` names, as in `predict`; a detector is loaded once.

        Raises:
            DatasetError: there is no such file of boxes, or a row of it is wrong.
            CheckpointError: the detector's weights cannot be downloaded or read, or it finds no
                persons.
        """
        if not isinstance(boxes, str | Path):
            return boxes
        name = str(boxes)
        source = self._detectors.get(name) or person_source(name, device=self.device)
        if isinstance(source, PersonDetector):
            self._detectors[name] = source
        return source

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
        for i, part in zip(busy, self._scores_in(pictures, [people[i] for i in busy]), strict=True):
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
            return np.empty((0, len(self.class_names)), np.float32)
        height, width = pictures[0].shape[:2]
        size = evaluated_size(width, height, self.clip, self.short_side, self.pad)
        scaled = np.empty((1, len(pictures), *size, 3), np.uint8)
        for picture, out in zip(pictures, scaled[0], strict=True):
            scale(picture, out, self.clip.interpolation)
        return self._scores_in(scaled, [people])[0]

    def _scores_in(self, pictures: np.ndarray, people: Sequence[PersonBoxes]) -> list[np.ndarray]:
        """Float32 ``(N, classes)`` of the persons, at least one, of each of S clips."""
        views, boxes, box_view = self._views(pictures, people)
        rows = self._score_boxes(views, np.concatenate(boxes), box_view)
        scores = np.split(rows, np.cumsum([len(part) for part in boxes])[:-1])
        if not self.times_person_score:
            return scores
        return [
            part * persons.scores[:, None].astype(np.float32)
            for part, persons in zip(scores, people, strict=True)
        ]

    def _views(
        self, pictures: np.ndarray, people: Sequence[PersonBoxes]
    ) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
        """What the model sees of persons.

        Args:
            pictures: of S clips, uint8 ``(S, T, H, W, 3)``.
            people: the persons of each clip, at least one.

        Returns:
            Clips, uint8 ``(T, H, W, 3)`` each; for each of S the boxes in [0, 1] of their clips,
            float64 ``(n, 4)``; and the clip of each of all boxes, int64 ``(N,)``.
        """
        height, width = pictures.shape[2:4]
        view_height, view_width = self.pad or (self.clip.height, self.clip.width)
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
        return clips, boxes, np.concatenate(box_clip)

    def _pictures(self, file: VideoFile, seconds: Sequence[int]) -> np.ndarray:
        """Frames around each second, timed and scaled as in evaluation: ``(S, T, H, W, 3)``."""
        clip = self.clip
        height, width = evaluated_size(file.width, file.height, clip, self.short_side, self.pad)
        times = [keyframe_times(s, clip.num_frames, clip.stride, clip.fps) for s in seconds]
        size, times = (height, width), np.concatenate(times)
        frames = file.frames_at(times, size, interpolation=clip.interpolation)
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
