"""The ground truth of AVA, and detections judged by it."""

from collections.abc import Iterator, Sequence

import numpy as np

from datamodules.ava.box_table import keyframe_keys
from hiera_video.metrics.ava_boxes import (
    DetectedBoxes,
    DetectedRows,
    check_keyframes,
    decimal_boxes,
)
from hiera_video.metrics.ava_errors import ErrorKinds, error_kinds
from hiera_video.metrics.ava_matching import (
    Detections,
    GroundTruth,
    average_precisions,
    highest_rows,
    highest_scores,
)


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
        check_keyframes(video, second)
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

    def evaluate_rows(self, detected: DetectedRows, protocol: str) -> np.ndarray:
        """Average precision of each class, by one of `PROTOCOLS`.

        Returns:
            float64 ``(classes,)``; NaN for classes without ground truth.
        """
        return self._evaluate(self._counted_rows(detected, protocol), protocol)

    def errors_of_rows(
        self, detected: DetectedRows, protocol: str, class_names: Sequence[str]
    ) -> ErrorKinds:
        """The kinds of errors of the rows that count by one of `PROTOCOLS`."""
        counted = self._counted_rows(detected, protocol)
        return error_kinds(counted, self.truth, len(self.keys) + 1, protocol, class_names)

    def _counted_rows(self, detected: DetectedRows, protocol: str) -> Iterator[Detections]:
        """The rows that count, class by class."""
        column = columns_of(detected.action_id, self.action_ids)
        keyframe = self.keyframes_of(detected.keys)
        counts = column >= 0
        if protocol == "official":
            counts &= keyframe < len(self.keys)
        detections = Detections(keyframe, detected.box, detected.score).rows(counts)
        column = column[counts]
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
            return self.evaluate_rows(DetectedRows(keys[row], box[row], action_id, score), protocol)
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
