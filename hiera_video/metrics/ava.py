"""Mean average precision on AVA, exact for boxes in any order and on any number of processes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from datamodules.ava.box_table import (
    KEYS_PER_VIDEO,
    MAX_SECOND,
    MAX_VIDEOS,
    keyframe_keys,
    keyframes_of_keys,
)
from hiera_video.metrics.ava_errors import ErrorKinds, error_kinds
from hiera_video.metrics.ava_matching import (
    PROTOCOLS,
    Detections,
    GroundTruth,
    average_precisions,
    highest_rows,
    highest_scores,
)
from hiera_video.metrics.ava_results import AVAResults


class DetectedBoxes(NamedTuple):
    """Boxes with a score for each class, sorted by video, second and box.

    Attributes:
        video: number of the video, int64 ``(n,)``.
        second: time of the keyframe, float64 ``(n,)``.
        boxes: x1, y1, x2, y2 in [0, 1] of the full frame, float32 ``(n, 4)``.
        scores: float32 ``(n, classes)``.
    """

    video: np.ndarray
    second: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


class Annotations:
    """Ground truth of a whole data set.

    Args:
        video: int ``(m,)`` in [0, 2^23).
        second: float or int ``(m,)``.
        boxes: x1, y1, x2, y2 of the full frame, float ``(m, 4)``; may be NaN in rows without a
            class.
        action_id: id as in the label map, int ``(m,)``. A row with any other id, such as -1 for a
            keyframe without boxes, only says that its keyframe was annotated.
        action_ids: id of each class, in the order of the columns of scores.
        person_id: eighth column of AVA's files, float or int ``(m,)``, NaN where there is none. It
            decides between boxes that a detection overlaps equally.

    Raises:
        ValueError: shapes or values are wrong, or a box has x1 >= x2 or y1 >= y2.
    """

    def __init__(
        self,
        video: np.ndarray,
        second: np.ndarray,
        boxes: np.ndarray,
        action_id: np.ndarray,
        action_ids: Sequence[int],
        person_id: np.ndarray | None = None,
    ) -> None:
        _check_keyframes(video, second)
        keys = keyframe_keys(video, second)
        self.keys = np.unique(keys)
        column = columns_of(action_id, action_ids)
        rows = np.flatnonzero(column >= 0)
        box = decimal_boxes(np.asarray(boxes)[rows])
        if not ((box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])).all():
            raise ValueError("a ground-truth box does not have x1 < x2 and y1 < y2")
        person = np.zeros(len(rows)) if person_id is None else np.nan_to_num(person_id[rows])
        keyframe = np.searchsorted(self.keys, keys[rows])
        self.truth = GroundTruth(keyframe, box, column[rows], person)
        self.action_ids = np.asarray(action_ids, np.int64)

    def keyframes_of(self, keys: np.ndarray) -> np.ndarray:
        """Number of each keyframe, int64 ``(n,)``; ``len(self.keys)`` where it is not annotated.

        Args:
            keys: int64 ``(n,)``, from `keyframe_keys`.
        """
        index = np.searchsorted(self.keys, keys)
        annotated = np.append(self.keys, -1)[index] == keys
        return np.where(annotated, index, len(self.keys))

    def boxes_per_class(self) -> np.ndarray:
        """Number of ground-truth boxes of each class, int64 ``(classes,)``."""
        return np.bincount(self.truth.column, minlength=len(self.action_ids))

    def evaluate_rows(
        self,
        keys: np.ndarray,
        box: np.ndarray,
        action_id: np.ndarray,
        score: np.ndarray,
        protocol: str,
    ) -> np.ndarray:
        """Average precision of each class, from rows with one box, one action and one score each.

        Args:
            keys: int64 ``(n,)``, from `keyframe_keys`.
            box: float64 ``(n, 4)``; boxes without area do not count.
            action_id: int64 ``(n,)``; rows whose id is not a class's do not count.
            score: float ``(n,)``, not NaN.
            protocol: one of `PROTOCOLS`.

        Returns:
            float64 ``(classes,)``; NaN for classes without ground truth.
        """
        counted = self._counted_rows(keys, box, action_id, score, protocol)
        return self._evaluate(counted, protocol)

    def errors_of_rows(
        self,
        keys: np.ndarray,
        box: np.ndarray,
        action_id: np.ndarray,
        score: np.ndarray,
        protocol: str,
        class_names: Sequence[str],
    ) -> ErrorKinds:
        """The kinds of errors; arguments as in `evaluate_rows`, and the names of the classes."""
        counted = self._counted_rows(keys, box, action_id, score, protocol)
        return error_kinds(counted, self.truth, len(self.keys) + 1, protocol, class_names)

    def _counted_rows(
        self,
        keys: np.ndarray,
        box: np.ndarray,
        action_id: np.ndarray,
        score: np.ndarray,
        protocol: str,
    ) -> Iterator[Detections]:
        """The rows that count by a protocol, class by class; arguments as in `evaluate_rows`."""
        column, keyframe = columns_of(action_id, self.action_ids), self.keyframes_of(keys)
        counts = column >= 0
        if protocol == "official":
            counts &= keyframe < len(self.keys)
        rows = np.flatnonzero(counts)
        detections, column = Detections(keyframe[rows], box[rows], score[rows]), column[rows]
        if protocol == "official":
            rows = highest_rows(detections, self.action_ids[column])
            detections, column = detections.rows(rows), column[rows]
        return self._by_class(detections, column)

    def evaluate_scores(self, detected: DetectedBoxes, protocol: str) -> np.ndarray:
        """As `evaluate_rows`, from boxes with a score for each class; NaN scores do not count.

        Args:
            detected: boxes of all keyframes, each once.
            protocol: one of `PROTOCOLS`.

        Returns:
            float64 ``(classes,)``; NaN for classes without ground truth.
        """
        keys, scores = keyframe_keys(detected.video, detected.second), detected.scores
        box = decimal_boxes(detected.boxes)
        if protocol == "official":
            row, column = highest_scores(keys, scores)
            action_id, score = self.action_ids[column], scores[row, column]
            return self.evaluate_rows(keys[row], box[row], action_id, score, protocol)
        # All scores count, which are too many to become rows at once.
        keyframe = self.keyframes_of(keys)
        columns = (Detections(keyframe, box, column) for column in scores.T)
        return self._evaluate((d.rows(~np.isnan(d.score)) for d in columns), protocol)

    def _by_class(self, detections: Detections, column: np.ndarray) -> Iterator[Detections]:
        order = np.argsort(column, kind="stable")
        ends = np.cumsum(np.bincount(column, minlength=len(self.action_ids)))
        for rows in np.split(order, ends[:-1]):
            yield detections.rows(rows)

    def _evaluate(self, classes: Iterator[Detections], protocol: str) -> np.ndarray:
        return average_precisions(classes, self.truth, len(self.keys) + 1, protocol)


class AVAMeanAveragePrecision(Metric):
    """mAP at IoU 0.5 of boxes with scores, by one of the protocols of `ava_matching`.

    The ground truth is set as a whole, so every keyframe counts, with or without detected boxes.
    Boxes may come in any order and in any batches, on any process. A box that comes again for the
    same video and second, as padding does, counts once, with the greater of its scores.
    ``pyslowfast`` takes rows in the order of `detections`.

    Coordinates in float32 are read as the shortest decimals that they stand for, 0.077 and not
    0.0769999996, so that the results equal those from csv files.

    Args:
        class_names: names of the classes, in the order of the columns of scores.
        action_ids: id of each class, as in the label map.
        protocol: ``official`` or ``pyslowfast``.

    Raises:
        ValueError: there is no such protocol, or names and ids do not fit each other.
    """

    full_state_update = False
    higher_is_better = True
    keyframe: list[Tensor] | Tensor
    boxes: list[Tensor] | Tensor
    scores: list[Tensor] | Tensor

    def __init__(
        self, class_names: Sequence[str], action_ids: Sequence[int], protocol: str = "official"
    ) -> None:
        super().__init__()
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
        if len(class_names) != len(action_ids) or len(set(action_ids)) != len(action_ids):
            raise ValueError("each class needs a name and an id of its own")
        self.class_names, self.action_ids = tuple(class_names), tuple(map(int, action_ids))
        self.protocol = protocol
        self.annotations: Annotations | None = None
        for name in ("keyframe", "boxes", "scores"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def set_ground_truth(
        self,
        video: np.ndarray,
        second: np.ndarray,
        boxes: np.ndarray,
        action_id: np.ndarray,
        person_id: np.ndarray | None = None,
    ) -> None:
        """Set the ground truth of all keyframes.

        Args:
            video: int ``(m,)`` in [0, 2^23).
            second: float or int ``(m,)``.
            boxes: x1, y1, x2, y2 in [0, 1] of the full frame, float ``(m, 4)``.
            action_id: int ``(m,)``; see `Annotations`.
            person_id: float or int ``(m,)``; see `Annotations`.

        Raises:
            ValueError: as in `Annotations`.
        """
        self.annotations = Annotations(video, second, boxes, action_id, self.action_ids, person_id)

    def update(self, boxes: Tensor, scores: Tensor, video: Tensor, second: Tensor) -> None:
        """Add N boxes.

        Args:
            boxes: x1, y1, x2, y2 in [0, 1] of the full frame, float ``(N, 4)``. N may be 0.
            scores: float ``(N, classes)``; NaN does not count.
            video: int64 ``(N,)``, as in the ground truth.
            second: float64 or int64 ``(N,)``, as in the ground truth.

        Raises:
            ValueError: shapes are wrong.
        """
        count, classes = len(boxes), len(self.class_names)
        shapes = [tuple(t.shape) for t in (boxes, scores, video, second)]
        if shapes != [(count, 4), (count, classes), (count,), (count,)]:
            raise ValueError(
                f"expected boxes (N, 4), scores (N, {classes}), video and second (N,), "
                f"not {', '.join(map(str, shapes))}"
            )
        # As `keyframe_keys`, but on the device of the boxes, so that no batch waits for it.
        if second.is_floating_point():
            microseconds = (second.double() * 1e6).round().long()
        else:
            microseconds = second.long() * 1_000_000
        for state, rows in (
            (self.keyframe, video.long() * KEYS_PER_VIDEO + microseconds),
            (self.boxes, boxes.detach().float()),
            (self.scores, scores.detach().float()),
        ):
            assert isinstance(state, list)
            state.append(rows.to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Exchange states between processes; one without boxes takes part with empty states."""
        if not self.keyframe:
            nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
            empty = [torch.zeros(0, n, device=self.device) for n in (4, len(self.class_names))]
            self.keyframe, self.boxes, self.scores = [nothing], [empty[0]], [empty[1]]
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """The means of `AVAResults.values`, such as ``mAP_official``, float64 scalars in [0, 1]."""
        values = self._results().values()
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def results(self) -> AVAResults:
        """Results of all processes, which must all call this.

        Raises:
            ValueError: no ground truth was set.
        """
        with self.sync_context(self.dist_sync_fn):
            return self._results()

    def detections(self) -> DetectedBoxes:
        """The boxes of all processes, each once; all processes must call this."""
        with self.sync_context(self.dist_sync_fn):
            return self._detections()

    def _results(self) -> AVAResults:
        if self.annotations is None:
            raise ValueError("the metric has no ground truth; call set_ground_truth first")
        precision = self.annotations.evaluate_scores(self._detections(), self.protocol)
        boxes = self.annotations.boxes_per_class()
        return AVAResults(self.class_names, self.action_ids, self.protocol, precision, boxes)

    def _detections(self) -> DetectedBoxes:
        if not len(self.keyframe):
            return sorted_boxes(
                np.zeros(0, np.int64),
                np.zeros((0, 4), np.float32),
                np.zeros((0, len(self.class_names)), np.float32),
            )
        states = (self.keyframe, self.boxes, self.scores)
        return sorted_boxes(*(dim_zero_cat(state).cpu().numpy() for state in states))


def sorted_boxes(keys: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> DetectedBoxes:
    """Sort boxes by keyframe and coordinates; equal boxes become one, with their greatest scores.

    Args:
        keys: int64 ``(n,)``, from `keyframe_keys`.
        boxes: float32 ``(n, 4)``.
        scores: float32 ``(n, classes)``.
    """
    order = np.lexsort((*boxes.T[::-1], keys))
    keys, boxes, scores = keys[order], boxes[order], scores[order]
    is_new = np.ones(len(keys), bool)
    is_new[1:] = (keys[1:] != keys[:-1]) | (boxes[1:] != boxes[:-1]).any(axis=1)
    if not is_new.all():
        scores = np.maximum.reduceat(scores, np.flatnonzero(is_new), axis=0)
        keys, boxes = keys[is_new], boxes[is_new]
    return DetectedBoxes(*keyframes_of_keys(keys), boxes, scores)


def decimal_boxes(boxes: np.ndarray) -> np.ndarray:
    """Boxes ``(n, 4)`` as float64; a float32 becomes the shortest decimal that it stands for."""
    if boxes.dtype != np.float32:
        return np.asarray(boxes, np.float64)
    flat = pa.array(boxes.reshape(-1)).cast(pa.string()).cast(pa.float64())
    return flat.to_numpy(zero_copy_only=False).reshape(boxes.shape)


def columns_of(action_id: np.ndarray, action_ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Column of the class of each action, int64 ``(n,)``; -1 where the id is not a class's.

    Args:
        action_id: int ``(n,)``.
        action_ids: id of each class.
    """
    ids = np.asarray(action_ids, np.int64)
    order = np.argsort(ids)
    index = np.minimum(np.searchsorted(ids, action_id, sorter=order), len(ids) - 1)
    columns = order[index]
    return np.where(ids[columns] == action_id, columns, -1)


def _check_keyframes(video: np.ndarray, second: np.ndarray) -> None:
    if len(video) and not (np.min(video) >= 0 and np.max(video) < MAX_VIDEOS):
        raise ValueError(f"numbers of videos must be in [0, {MAX_VIDEOS})")
    if len(second) and not (np.min(second) >= 0 and np.max(second) < MAX_SECOND):
        raise ValueError(f"seconds must be in [0, {MAX_SECOND:.0f})")
