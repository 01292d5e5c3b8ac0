"""Mean average precision of AVA's action detection, exact whatever the order and the processes."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from hiera_video.metrics.ava_matching import (
    PROTOCOLS,
    ROWS_PER_KEYFRAME,
    SECONDS,
    Detections,
    GroundTruth,
    average_precisions,
    highest_rows,
    keyframe_keys,
    run_lengths,
)
from hiera_video.metrics.ava_results import AVAResults

_SCORES_AT_ONCE = 2_000_000


class DetectedBoxes(NamedTuple):
    """Boxes with a score for each class, sorted by video, second and box.

    Attributes:
        video: int64 ``(n,)``.
        second: float64 ``(n,)``.
        boxes: float32 ``(n, 4)``: x1, y1, x2, y2 in [0, 1] of the full frame.
        scores: float32 ``(n, classes)``.
    """

    video: np.ndarray
    second: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


class Annotations:
    """Ground truth of a whole data set.

    Args:
        video: int ``(m,)``, in [0, 2^23).
        second: float or int ``(m,)``.
        boxes: float ``(m, 4)``: x1, y1, x2, y2 of the full frame; of rows without an action, any.
        action_id: int ``(m,)``, as in the label map; other ids, such as -1 of a row without a box,
            only name a keyframe that was looked at.
        action_ids: id of each class, in the order of the columns of scores.
        person_id: ``(m,)``, the eighth column of AVA's files; decides between boxes that overlap a
            detection alike.

    Raises:
        ValueError: shapes or values are not such, or a box has x1 >= x2 or y1 >= y2.
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
        rows = keyframe_keys(video, np.asarray(second, np.float64))
        self.keys = np.unique(rows)
        column = columns_of(action_id, action_ids)
        known = np.flatnonzero(column >= 0)
        box = decimal_boxes(np.asarray(boxes)[known])
        if not ((box[:, 0] < box[:, 2]) & (box[:, 1] < box[:, 3])).all():
            raise ValueError("a ground-truth box has not x1 < x2 and y1 < y2")
        person = np.zeros(len(known)) if person_id is None else np.asarray(person_id)[known]
        self.truth = GroundTruth(
            np.searchsorted(self.keys, rows[known]), box, column[known], person
        )
        self.action_ids = np.asarray(action_ids, np.int64)

    def keyframes_of(self, keys: np.ndarray) -> np.ndarray:
        """Number of each keyframe in ``keys``, int64; ``len(keys)`` of those without annotation."""
        places = np.searchsorted(self.keys, keys)
        known = np.append(self.keys, -1)[places] == keys
        return np.where(known, places, len(self.keys))

    def boxes_per_class(self) -> np.ndarray:
        """int64 ``(classes,)``."""
        return np.bincount(self.truth.column, minlength=len(self.action_ids))

    def evaluate_rows(
        self,
        keys: np.ndarray,
        box: np.ndarray,
        action_id: np.ndarray,
        score: np.ndarray,
        protocol: str,
    ) -> np.ndarray:
        """Average precision of each class from rows of one box, one action and one score.

        Args:
            keys: int64 ``(n,)``, from `keyframe_keys`.
            box: float64 ``(n, 4)``; those without area do not count.
            action_id: int64 ``(n,)``; those of no class do not count.
            score: float ``(n,)``, no NaN.
            protocol: one of PROTOCOLS.

        Returns:
            float64 ``(classes,)``; NaN of those without ground truth.
        """
        column, keyframe = columns_of(action_id, self.action_ids), self.keyframes_of(keys)
        rows = np.flatnonzero((column >= 0) & self._counts(keyframe, protocol))
        detections = Detections(keyframe[rows], box[rows], score[rows])
        column = column[rows]
        if protocol == "official":
            rows = highest_rows(detections, self.action_ids[column])
            detections, column = detections.rows(rows), column[rows]
        return self._evaluate(self._by_class(detections, column), protocol)

    def evaluate_scores(self, detected: DetectedBoxes, protocol: str) -> np.ndarray:
        """The same from boxes with a score for each class; a score that is NaN does not count."""
        keyframe = self.keyframes_of(keyframe_keys(detected.video, detected.second))
        rows = np.flatnonzero(self._counts(keyframe, protocol))
        keyframe, scores = keyframe[rows], detected.scores[rows]
        box = decimal_boxes(detected.boxes[rows])
        if protocol == "official":
            none = Detections(keyframe[:0], box[:0], scores[:0].reshape(-1)), keyframe[:0]
            parts = [none, *self._highest(keyframe, box, scores)]
            detections = Detections(*map(np.concatenate, zip(*(d for d, _ in parts), strict=True)))
            classes = self._by_class(detections, np.concatenate([c for _, c in parts]))
        else:
            whole = (Detections(keyframe, box, column) for column in scores.T)
            classes = (d.rows(~np.isnan(d.score)) for d in whole)
        return self._evaluate(classes, protocol)

    def _counts(self, keyframe: np.ndarray, protocol: str) -> np.ndarray:
        return (keyframe < len(self.keys)) | (protocol != "official")

    def _by_class(self, detections: Detections, column: np.ndarray) -> Iterator[Detections]:
        order = np.argsort(column, kind="stable")
        ends = np.cumsum(np.bincount(column, minlength=len(self.action_ids)))
        for rows in np.split(order, ends[:-1]):
            yield detections.rows(rows)

    def _highest(
        self, keyframe: np.ndarray, box: np.ndarray, scores: np.ndarray
    ) -> Iterator[tuple[Detections, np.ndarray]]:
        """The 50 rows of each keyframe and their columns, for some keyframes at a time."""
        sizes = run_lengths(keyframe)
        starts, classes = np.cumsum(sizes) - sizes, scores.shape[1]
        for size in np.unique(sizes):
            alike = starts[sizes == size]
            at_once = max(1, _SCORES_AT_ONCE // (size * classes))
            for begin in range(0, len(alike), at_once):
                rows = (alike[begin : begin + at_once, None] + np.arange(size)).reshape(-1)
                some = scores[rows].reshape(-1, size * classes)
                some = np.where(np.isnan(some), -np.inf, some)
                if some.shape[1] > ROWS_PER_KEYFRAME:
                    least = np.partition(some, -ROWS_PER_KEYFRAME)[:, -ROWS_PER_KEYFRAME, None]
                    some[some < least] = -np.inf
                places, column = np.nonzero(some.reshape(-1, classes) > -np.inf)
                rows = rows[places]
                found = Detections(keyframe[rows], box[rows], scores[rows, column])
                best = highest_rows(found, self.action_ids[column])
                yield found.rows(best), column[best]

    def _evaluate(self, classes: Iterator[Detections], protocol: str) -> np.ndarray:
        return average_precisions(classes, self.truth, len(self.keys) + 1, protocol)


class AVAMeanAveragePrecision(Metric):
    """mAP at IoU 0.5 of boxes with scores, by one of the protocols of `ava_matching`.

    The ground truth is given whole and at once, so no keyframe can leave the metric, seen or not.
    Boxes come in any order and batches, on any process. A box that comes again for the same video
    and second, such as padding, counts once, with the greater of its scores. `pyslowfast` takes
    rows in the order of `detections`.

    Coordinates in float32 are taken as the shortest decimal that they stand for, 0.077 and not
    0.0769999996, so that the numbers are those of the csv files.

    Args:
        class_names: in the order of the columns of scores.
        action_ids: of each class, as in the label map.
        protocol: ``official`` or ``pyslowfast``.

    Raises:
        ValueError: there is no such protocol, or names and ids do not fit.
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
            raise ValueError(f"protocol is one of {', '.join(PROTOCOLS)}, not {protocol!r}")
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
        """Set the ground truth of all keyframes; arguments and errors as of `Annotations`."""
        self.annotations = Annotations(video, second, boxes, action_id, self.action_ids, person_id)

    def update(self, boxes: Tensor, scores: Tensor, video: Tensor, second: Tensor) -> None:
        """Add boxes.

        Args:
            boxes: float ``(N, 4)``: x1, y1, x2, y2 in [0, 1] of the full frame. N may be 0.
            scores: float ``(N, classes)``; NaN does not count.
            video: int64 ``(N,)``, as in the ground truth.
            second: float64 or int64 ``(N,)``, as in the ground truth.

        Raises:
            ValueError: shapes are not such.
        """
        count, classes = len(boxes), len(self.class_names)
        shapes = [tuple(t.shape) for t in (boxes, scores, video, second)]
        if shapes != [(count, 4), (count, classes), (count,), (count,)]:
            raise ValueError(
                f"boxes (N, 4), scores (N, {classes}), video and second (N,) are expected, "
                f"not {', '.join(map(str, shapes))}"
            )
        if second.is_floating_point():
            microseconds = (second.double() * 1e6).round().long()
        else:
            microseconds = second.long() * 1_000_000
        for state, rows in (
            (self.keyframe, (video.long() << 40) | microseconds),
            (self.boxes, boxes.detach().float()),
            (self.scores, scores.detach().float()),
        ):
            assert isinstance(state, list)
            state.append(rows.to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """A process that saw no box takes part with none."""
        if not self.keyframe:
            nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
            empty = [torch.zeros(0, n, device=self.device) for n in (4, len(self.class_names))]
            self.keyframe, self.boxes, self.scores = [nothing], [empty[0]], [empty[1]]
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """``mAP_official`` (or ``mAP_pyslowfast``) in [0, 1], and as `AVAResults.values`."""
        values = self._results().values()
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def results(self) -> AVAResults:
        """The numbers of each class, of all processes; all of them have to ask.

        Raises:
            ValueError: there is no ground truth.
        """
        with self.sync_context():
            return self._results()

    def detections(self) -> DetectedBoxes:
        """What was seen, of all processes, each box once; all of them have to ask."""
        with self.sync_context():
            return self._detections()

    def _results(self) -> AVAResults:
        if self.annotations is None:
            raise ValueError("the metric has no ground truth; call set_ground_truth first")
        found = self.annotations.evaluate_scores(self._detections(), self.protocol)
        boxes = self.annotations.boxes_per_class()
        return AVAResults(self.class_names, self.action_ids, self.protocol, found, boxes)

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
    """Boxes in an order that depends on nothing but them, each once with its greatest scores."""
    order = np.lexsort((*boxes.T[::-1], keys))
    keys, boxes = keys[order], boxes[order]
    other = np.r_[True, (keys[1:] != keys[:-1]) | (boxes[1:] != boxes[:-1]).any(1)][: len(keys)]
    scores = scores[order]
    if not other.all():
        scores = np.maximum.reduceat(scores, np.flatnonzero(other), axis=0)
        keys, boxes = keys[other], boxes[other]
    return DetectedBoxes(keys >> 40, (keys & (2**40 - 1)) / 1e6, boxes, scores)


def decimal_boxes(boxes: np.ndarray) -> np.ndarray:
    """float64 boxes; of float32 ones, the shortest decimals that they stand for."""
    if boxes.dtype != np.float32:
        return np.asarray(boxes, np.float64)
    flat = pa.array(boxes.reshape(-1)).cast(pa.string()).cast(pa.float64())
    return flat.to_numpy(zero_copy_only=False).reshape(boxes.shape)


def columns_of(action_id: np.ndarray, action_ids: Sequence[int] | np.ndarray) -> np.ndarray:
    """Column of each action, int64 ``(n,)``; -1 of those that are no class."""
    ids = np.asarray(action_ids, np.int64)
    order = np.argsort(ids)
    places = np.minimum(np.searchsorted(ids, action_id, sorter=order), len(ids) - 1)
    columns = order[places]
    return np.where(ids[columns] == action_id, columns, -1)


def _check_keyframes(video: np.ndarray, second: np.ndarray) -> None:
    if len(video) and not (np.min(video) >= 0 and np.max(video) < 2**23):
        raise ValueError("numbers of videos are in [0, 2^23)")
    if len(second) and not (np.min(second) >= 0 and np.max(second) < SECONDS):
        raise ValueError(f"seconds are in [0, {SECONDS:.0f})")
