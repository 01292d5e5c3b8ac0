"""Where persons are in a video, second by second: detected, read from a file, or everywhere."""

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.ava.annotations import read_boxes
from datamodules.ava.box_table import (
    check_boxes,
    check_no_person_ids,
    check_scores,
    check_whole_seconds,
)
from datamodules.errors import DatasetError
from datamodules.video.decoding import VideoFile
from hiera_video.errors import CheckpointError
from hiera_video.predicting.instances import InstancePredictor, load_instances
from hiera_video.predicting.torchvision_detectors import load_detector
from hiera_video.terminal import did_you_mean

log = logging.getLogger(__name__)

COCO_PERSON = 1  # as torchvision counts classes, 0 being the background
PERSON = "person"  # name of the class that a run of instance segmentation needs
TRAINED = (".ckpt", ".safetensors", "model.json")  # ends of the names of trained models


class PersonBoxes(NamedTuple):
    """The persons of a frame.

    Attributes:
        boxes: x1, y1, x2, y2 in [0, 1] of the frame, float64 ``(N, 4)``.
        scores: how certain it is that each is a person, in [0, 1], float64 ``(N,)``.
    """

    boxes: np.ndarray
    scores: np.ndarray


WHOLE = PersonBoxes(np.array([[0.0, 0.0, 1.0, 1.0]]), np.ones(1))  # one person in all the frame


class PersonSource(Protocol):
    """Finds the persons of any video."""

    def seconds(self, video: str, duration: float) -> list[int]:
        """When to look for persons.

        Args:
            video: path of the file.
            duration: length of the video, seconds.

        Returns:
            Seconds from the start of the video, ascending.

        Raises:
            DatasetError: the persons of this video are not known.
        """
        ...

    def at(self, file: VideoFile, seconds: Sequence[int]) -> list[PersonBoxes]:
        """The persons at each of ``seconds``, which are ascending."""
        ...


@runtime_checkable
class SeesPersons(Protocol):
    """Finds the persons of a picture that belongs to no file."""

    def in_picture(self, picture: np.ndarray) -> PersonBoxes:
        """The persons of a picture, uint8 ``(H, W, 3)``."""
        ...


def person_source(
    boxes: str,
    detector: str = "fasterrcnn_resnet50_fpn_v2",
    weights: str | Path | None = None,
    min_score: float = 0.8,
    device: torch.device | str = "cpu",
) -> PersonSource:
    """The source of persons that ``boxes=`` names.

    Args:
        boxes: ``detector``; ``full_frame``; a csv of person boxes as in `BoxFile`; or a run of
            instance segmentation, as `load_instances` takes it, with a class named ``person``.
        detector: name of a detection model in torchvision.
        weights: a local file of its weights; None: torchvision's own, downloaded once.
        min_score: persons with a lower score are left out; in [0, 1].
        device: of the detector.

    Raises:
        ValueError: there is no such detector, or the score is outside [0, 1].
        CheckpointError: the detector's weights cannot be downloaded, or are another model's; or
            the run is of another kind, or has no such class.
        DatasetError: there is no such file, or a row of it is wrong.
    """
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score must be in [0, 1], not {min_score}")
    if boxes == "full_frame":
        return WholeFrame()
    if boxes == "detector":
        return PersonDetector(load_detector(detector, weights).to(device), min_score)
    if os.path.isdir(boxes) or (os.path.isfile(boxes) and boxes.endswith(TRAINED)):
        return InstancePersons(load_instances(boxes, device), min_score, boxes)
    if not os.path.isfile(boxes):
        hint = did_you_mean(boxes, ("detector", "full_frame"))
        raise DatasetError(
            f"{boxes}: no such file; boxes= is detector, full_frame, a csv or a run of instance "
            f"segmentation{hint}"
        )
    return BoxFile(boxes, min_score)


def whole_seconds(duration: float) -> list[int]:
    """0, 1, 2, ... up to the end of a video of ``duration`` seconds; 0 is always included."""
    return list(range(max(1, math.ceil(duration))))


class WholeFrame:
    """One person that fills the frame, with score 1."""

    def seconds(self, video: str, duration: float) -> list[int]:
        """All whole seconds of the video."""
        return whole_seconds(duration)

    def at(self, file: VideoFile, seconds: Sequence[int]) -> list[PersonBoxes]:
        """The same box at each second."""
        return [WHOLE for _ in seconds]

    def in_picture(self, picture: np.ndarray) -> PersonBoxes:
        """The same box in each picture."""
        return WHOLE


class PersonDetector:
    """Persons as a detection model of torchvision finds them.

    Args:
        model: takes a list of images, float ``(3, H, W)`` in [0, 1], and returns a dict for each:
            ``boxes`` ``(N, 4)`` in pixels, ``labels`` and ``scores`` ``(N,)``.
        min_score: persons with a lower score are left out; in [0, 1].
        person: the label that stands for persons.
    """

    def __init__(self, model: nn.Module, min_score: float = 0.8, person: int = COCO_PERSON) -> None:
        self.model, self.min_score, self.person = model.eval(), min_score, person
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def seconds(self, video: str, duration: float) -> list[int]:
        """All whole seconds of the video."""
        return whole_seconds(duration)

    def at(self, file: VideoFile, seconds: Sequence[int]) -> list[PersonBoxes]:
        """Detect persons in the frame that is shown at each second."""
        # One frame at a time, which bounds memory.
        return [self.in_picture(picture) for picture in file.frames_at(seconds)]

    @torch.inference_mode()
    def in_picture(self, picture: np.ndarray) -> PersonBoxes:
        """Detect persons in a picture, uint8 ``(H, W, 3)``."""
        objects = self.objects(picture)
        is_person = (objects["labels"] == self.person) & (objects["scores"] >= self.min_score)
        boxes, scores = (objects[key][is_person].cpu().double() for key in ("boxes", "scores"))
        height, width = picture.shape[:2]
        boxes = (boxes / torch.tensor([width, height, width, height])).clamp(0, 1)
        return _sound(PersonBoxes(boxes.numpy(), scores.numpy()))

    def objects(self, picture: np.ndarray) -> dict[str, Tensor]:
        """All objects in a picture, uint8 ``(H, W, 3)``, as the model returns them."""
        frame = torch.from_numpy(picture).permute(2, 0, 1)  # (3, H, W)
        return self.model([frame.to(self.device).float() / 255])[0]


class InstancePersons(PersonDetector):
    """Persons as a trained instance segmentation finds them.

    Args:
        predictor: one of its classes is `PERSON`.
        min_score: as in `PersonDetector`.
        source: where the predictor came from, for messages.

    Raises:
        CheckpointError: there is no such class.
    """

    def __init__(self, predictor: InstancePredictor, min_score: float, source: str) -> None:
        names = predictor.class_names
        if PERSON not in names:
            shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
            raise CheckpointError(
                f"{source}: no class is called {PERSON!r}, so it finds no persons; it has {shown}"
            )
        super().__init__(predictor.model, min_score, names.index(PERSON) + 1)
        self.predictor = predictor

    def objects(self, picture: np.ndarray) -> dict[str, Tensor]:
        """All objects in a picture, uint8 ``(H, W, 3)``, with boxes in its pixels."""
        return self.predictor.detections(picture)


class BoxFile:
    """Persons from a csv as `read_boxes` takes it: ``video,second,x1,y1,x2,y2,,score``.

    A box in several rows, each with another action, counts once.

    Args:
        path: the csv, which names videos by their file names, with or without suffix. Seconds count
            from the start of a video.
        min_score: persons with a lower score are left out; in [0, 1].

    Raises:
        DatasetError: a row is wrong.
    """

    def __init__(self, path: str | Path, min_score: float = 0.0) -> None:
        self.path = Path(path)
        table = read_boxes(self.path)
        table = table.where(table.has_box)
        check_boxes(table)
        check_no_person_ids(table)
        check_scores(table)
        check_whole_seconds(table)
        self._videos = {name: i for i, name in enumerate(table.names)}
        self._min_score, self._highest = min_score, np.full(len(table.names), -np.inf)
        np.maximum.at(self._highest, table.video, table.score)
        keep = table.score >= min_score
        rows = np.column_stack([table.video, table.second, table.boxes, table.score])[keep]
        self._rows = np.unique(rows, axis=0)  # sorted by video, then by second

    def seconds(self, video: str, duration: float) -> list[int]:
        """All whole seconds of the video.

        Raises:
            DatasetError: the file has no person in this video at any of them.
        """
        whole, (listed, _) = whole_seconds(duration), self._of(video)
        if not np.isin(listed, whole).any():
            raise DatasetError(f"{self.path}: {self._lack(video, listed, duration)}")
        if late := len(np.setdiff1d(listed, whole)):
            log.warning(f"{self.path}: {late} seconds lie after the end of {video}; not used")
        return whole

    def at(self, file: VideoFile, seconds: Sequence[int]) -> list[PersonBoxes]:
        """The rows of the file at each second; nobody where it has none."""
        listed, rows = self._of(file.path)
        starts = np.searchsorted(listed, seconds, "left")
        ends = np.searchsorted(listed, seconds, "right")
        parts = [rows[start:end] for start, end in zip(starts, ends, strict=True)]
        return [PersonBoxes(part[:, :4], part[:, 4]) for part in parts]

    def _lack(self, video: str, listed: np.ndarray, duration: float) -> str:
        """Why no person is left in a video; ``listed`` are the seconds that have one."""
        name, number = Path(video).name, self._number(video)
        if len(listed):
            span = f"seconds {listed.min():g} to {listed.max():g}"
            return f"has {span} in {name}, which lasts {duration:.1f} s"
        if number >= 0 and np.isfinite(self._highest[number]):
            return (
                f"nobody in {name} has persons.min_score={self._min_score:g}; the highest score is "
                f"{self._highest[number]:g}"
            )
        named = [known for known, i in self._videos.items() if np.isfinite(self._highest[i])]
        return f"has nobody in {name}; " + (
            f"it has persons in {', '.join(named[:3])}{' ...' if named[3:] else ''}"
            if named
            else "it has no persons at all"
        )

    def _number(self, video: str) -> int:
        """The number of a video; -1 if the file does not name it."""
        path = Path(video)
        return self._videos.get(path.stem, self._videos.get(path.name, -1))

    def _of(self, video: str) -> tuple[np.ndarray, np.ndarray]:
        """Seconds ``(N,)``, ascending, and boxes with scores ``(N, 5)`` of a video."""
        number = self._number(video)
        start, end = np.searchsorted(self._rows[:, 0], (number, number + 1))
        return self._rows[start:end, 1], self._rows[start:end, 2:]


def _sound(persons: PersonBoxes) -> PersonBoxes:
    """The persons whose boxes have an area."""
    boxes = persons.boxes
    keep = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    return PersonBoxes(boxes[keep], persons.scores[keep])
