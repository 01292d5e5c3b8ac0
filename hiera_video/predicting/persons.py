"""Where the persons of a video are, second by second: detected, given in a file, or everywhere."""

import logging
import math
import os
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.ava.annotations import read_boxes
from datamodules.ava.box_table import NO_ACTION, BoxTable, check_boxes, check_scores, fail
from datamodules.errors import DatasetError
from datamodules.video.decoding import VideoFile
from hiera_video.errors import CheckpointError
from hiera_video.terminal import did_you_mean, progress_line
from hiera_video.weights.download import digest_in_name, download
from hiera_video.weights.files import network_weights, read_checkpoint

log = logging.getLogger(__name__)

WITHOUT_WEIGHTS = "or set boxes=FILE.csv or boxes=full_frame, which need no detector"
COCO_PERSON, COCO_CLASSES = 1, 91  # as torchvision counts them, 0 being the background


class PersonBoxes(NamedTuple):
    """The persons of a frame.

    Attributes:
        boxes: x1, y1, x2, y2 in [0, 1] of the frame, float64 ``(N, 4)``.
        scores: that it is a person, in [0, 1], float64 ``(N,)``.
    """

    boxes: np.ndarray
    scores: np.ndarray


class PersonSource(Protocol):
    """Finds the persons of any video."""

    def seconds(self, video: str, duration: float) -> list[int]:
        """When to look, ascending."""
        ...

    def at(self, file: VideoFile, seconds: Sequence[int]) -> list[PersonBoxes]:
        """The persons at each of some ascending times."""
        ...


def person_source(
    boxes: str,
    detector: str = "fasterrcnn_resnet50_fpn_v2",
    weights: str | Path | None = None,
    min_score: float = 0.8,
    device: torch.device | str = "cpu",
) -> PersonSource:
    """Make what ``boxes=`` names.

    Args:
        boxes: ``detector``, ``full_frame``, or a file of person boxes.
        detector: a detection model of torchvision.
        weights: a local file of its weights; None: torchvision's own, downloaded once.
        min_score: of a person, in [0, 1]; others are left out.
        device: of the detector.

    Raises:
        ValueError: no such detector, file or score.
        CheckpointError: the detector's weights cannot be had, or are not its weights.
        DatasetError: a row of the file is wrong.
    """
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score must be in [0, 1], not {min_score}")
    if boxes == "full_frame":
        return WholeFrame()
    if boxes == "detector":
        return PersonDetector(load_detector(detector, weights).to(device), min_score)
    if not os.path.isfile(boxes):
        hint = did_you_mean(boxes, ("detector", "full_frame"))
        raise DatasetError(f"{boxes}: no such file; boxes= is detector, full_frame or a csv{hint}")
    return BoxFile(boxes, min_score)


def whole_seconds(duration: float) -> list[int]:
    """0, 1, 2, ... as long as the video lasts."""
    return list(range(max(1, math.ceil(duration))))


class WholeFrame:
    """One box around everything."""

    def seconds(self, video: str, duration: float) -> list[int]:
        """Whole seconds."""
        return whole_seconds(duration)

    def at(self, file: VideoFile, seconds: Sequence[int]) -> list[PersonBoxes]:
        """The frame."""
        return [PersonBoxes(np.array([[0.0, 0.0, 1.0, 1.0]]), np.ones(1)) for _ in seconds]


class PersonDetector:
    """Persons as a detection model of torchvision finds them.

    Args:
        model: from images float ``(3, H, W)`` in [0, 1] to dicts of ``boxes`` in pixels, ``labels``
            and ``scores``.
        min_score: of a person.
        person: label of persons.
    """

    def __init__(self, model: nn.Module, min_score: float = 0.8, person: int = COCO_PERSON) -> None:
        self.model, self.min_score, self.person = model.eval(), min_score, person
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))

    def seconds(self, video: str, duration: float) -> list[int]:
        """Whole seconds."""
        return whole_seconds(duration)

    def at(self, file: VideoFile, seconds: Sequence[int]) -> list[PersonBoxes]:
        """Detected in the frames on display then."""
        frames = torch.from_numpy(file.frames_at(seconds)).permute(0, 3, 1, 2)  # (n, 3, H, W)
        return [self._detect(frame) for frame in frames]

    @torch.inference_mode()
    def _detect(self, frame: Tensor) -> PersonBoxes:
        """Persons in uint8 ``(3, H, W)``; one at a time, which bounds memory."""
        found = self.model([frame.to(self.device).float() / 255])[0]
        is_person = (found["labels"] == self.person) & (found["scores"] >= self.min_score)
        boxes, scores = (found[key][is_person].cpu().double() for key in ("boxes", "scores"))
        height, width = frame.shape[-2:]
        boxes = (boxes / torch.tensor([width, height, width, height])).clamp(0, 1)
        return _sound(PersonBoxes(boxes.numpy(), scores.numpy()))


def load_detector(name: str, weights: str | Path | None = None) -> nn.Module:
    """A detection model of torchvision, trained on COCO.

    Args:
        name: such as ``fasterrcnn_resnet50_fpn_v2`` or ``ssdlite320_mobilenet_v3_large``.
        weights: a local file; None: torchvision's, in torch's cache (``TORCH_HOME``), downloaded if
            they are not there yet.

    Raises:
        ValueError: torchvision has no such model.
        CheckpointError: the weights cannot be had, or are another model's.
    """
    from torchvision.models import detection, get_model, get_model_weights, list_models

    known = list_models(module=detection)
    if name not in known:
        raise ValueError(
            f"no detector {name!r}{did_you_mean(name, known) or '; there are ' + ', '.join(known)}"
        )
    if weights is None:
        # Enums of these models have a default each; the URL is torchvision's.
        best: Any = get_model_weights(name).DEFAULT  # pyright: ignore[reportAttributeAccessIssue]
        weights = _downloaded(name, best.url)
    tensors = network_weights(read_checkpoint(weights), weights)
    model = get_model(name, weights=None, weights_backbone=None, num_classes=COCO_CLASSES)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{weights}: not the weights of {name} for COCO") from error
    return model


def _downloaded(name: str, url: str) -> Path:
    path = Path(torch.hub.get_dir(), "checkpoints", url.rpartition("/")[2])
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with progress_line(name, "MB") as show:
            download(url, path, show, digest_in_name(url))
    except (OSError, HTTPException, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise CheckpointError(
            f"weights of the person detector {name} cannot be downloaded ({reason}); put {url} at "
            f"{path} yourself, {WITHOUT_WEIGHTS}"
        ) from error
    return path


class BoxFile:
    """Persons from a file as `read_boxes` takes it: ``video,second,x1,y1,x2,y2,,score``.

    A box that is there several times, with one action each, counts once.

    Args:
        path: the file; it names a video by its file name, with or without suffix. Seconds count
            from the start of the video.
        min_score: of a person.

    Raises:
        DatasetError: a row is wrong.
    """

    def __init__(self, path: str | Path, min_score: float = 0.0) -> None:
        self.path = Path(path)
        table = read_boxes(self.path)
        table = table.where(table.has_box)
        check_boxes(table)
        _refuse_person_ids(table)
        check_scores(table)
        _check_whole_seconds(table)
        self._videos = {name: i for i, name in enumerate(table.names)}
        keep = table.score >= min_score
        rows = np.column_stack([table.video, table.second, table.boxes, table.score])[keep]
        self._rows = np.unique(rows, axis=0)  # sorted by video, then by second

    def seconds(self, video: str, duration: float) -> list[int]:
        """Whole seconds.

        Raises:
            DatasetError: at none of them the file has a person in this video.
        """
        whole, (given, _) = whole_seconds(duration), self._of(video)
        if not np.isin(given, whole).any():
            first = f"seconds {given.min():g} to {given.max():g}" if len(given) else "nobody"
            raise DatasetError(
                f"{self.path}: has {first} in {Path(video).name}, which lasts {duration:.1f} s"
            )
        if late := len(np.setdiff1d(given, whole)):
            log.warning(f"{self.path}: {late} seconds lie after the end of {video}, not used")
        return whole

    def at(self, file: VideoFile, seconds: Sequence[int]) -> list[PersonBoxes]:
        """As the file has them; nobody where it says nothing."""
        given, rows = self._of(file.path)
        starts = np.searchsorted(given, seconds, "left")
        ends = np.searchsorted(given, seconds, "right")
        parts = [rows[start:end] for start, end in zip(starts, ends, strict=True)]
        return [PersonBoxes(part[:, :4], part[:, 4]) for part in parts]

    def _of(self, video: str) -> tuple[np.ndarray, np.ndarray]:
        """Seconds ``(N,)``, ascending, and boxes with scores ``(N, 5)`` of a video."""
        path = Path(video)
        number = self._videos.get(path.stem, self._videos.get(path.name, -1))
        start, end = np.searchsorted(self._rows[:, 0], (number, number + 1))
        return self._rows[start:end, 1], self._rows[start:end, 2:]


def _check_whole_seconds(table: BoxTable) -> None:
    if (wrong := table.second % 1 != 0).any():
        i = int(wrong.argmax())
        fail(table.file, table.row[i], f"expected a whole second, not {table.second[i]:g}")


def _refuse_person_ids(table: BoxTable) -> None:
    """In AVA's ground truth the eighth column is a person's number."""
    score, has_actions = table.score, (table.action != NO_ACTION).any()
    if has_actions and (score % 1 == 0).all() and (score != 1).any():
        raise DatasetError(
            f"{table.file}: its eighth column looks like the persons' numbers of a ground truth; "
            "write 1 there, a person's score"
        )


def _sound(persons: PersonBoxes) -> PersonBoxes:
    """Without boxes that have no area."""
    boxes = persons.boxes
    keep = (boxes[:, 0] < boxes[:, 2]) & (boxes[:, 1] < boxes[:, 3])
    return PersonBoxes(boxes[keep], persons.scores[keep])
