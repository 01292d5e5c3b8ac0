"""Who does what in a video, once a second: what `load` gives for an action detector.

A file of any length is read forwards, some seconds at a time; earlier ones are not kept.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from datamodules.clips.format import ClipFormat
from datamodules.clips.sampling import keyframe_times, last_frame_time
from datamodules.video.decoding import VideoFile
from hiera_video.augment.basic import Normalize
from hiera_video.errors import ChoiceError
from hiera_video.predicting.batches import ClipNetwork
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from hiera_video.predicting.moments import Moment, Second, second_with_persons
from hiera_video.predicting.person_scores import PersonScorer
from hiera_video.predicting.persons import (
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

    Unlike evaluation, it sees all of the picture, not only the centre; see `PersonScorer`.

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
        scorer: computes the scores of persons.
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
        self.scorer = PersonScorer(
            self._network, len(self.class_names), clip, times_person_score, short_side, pad
        )
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
            views = self.scorer.views(self.scorer.pictures(file, [when]), [people])
            last = last_frame_time(file.duration, float(file.rate))
        (inside,), (scores,) = views.boxes, self.scorer.scores_in(views, [people])
        if person is not None and not 0 <= person < len(scores):
            raise ChoiceError(
                f"{video}: no person {person} at second {when}; there are 0 to {len(scores) - 1}"
            )
        rows = range(len(scores)) if person is None else [person]
        columns = range(len(self.class_names)) if wanted is None else [wanted]
        row, column = max(product(rows, columns), key=lambda place: scores[place])
        box, clip = torch.from_numpy(inside[row]).float(), views.clips[views.box_clip[row]]

        def inputs(copies: int) -> dict[str, Tensor]:
            return {"boxes": box.expand(copies, 4), "box_clip": torch.arange(copies)}

        heat, peak = saliency_map(
            self._network, clip, column, torch.sigmoid, inputs, method, stage, cuboid, show
        )
        x1, y1, x2, y2 = inside[row].tolist()
        label, score = self.class_names[column], float(scores[row, column])
        times = keyframe_times(when, self.clip.num_frames, self.clip.stride, self.clip.fps)
        return Saliency(clip, heat, peak, label, score, method, times, (x1, y1, x2, y2), last)

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
            scores = self.scorer.scores(file, chunk, people)
            yield from map(Moment, chunk, people, scores)
