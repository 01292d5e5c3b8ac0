"""Persons of one video over time, from a csv of AVA: ground truth or detections."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from datamodules.ava.box_table import BoxTable
from datamodules.clips.boxes import intersection_over_union
from hiera_video.metrics.ava_annotations import columns_of

SAME_PERSON = 0.3  # least IoU of a person's boxes at two keyframes
LONGEST_GAP = 1.5  # seconds between them, at most


class Track(NamedTuple):
    """One person over the keyframes of a video.

    Attributes:
        seconds: of the keyframes as the file counts them, float64 ``(n,)``, ascending.
        boxes: x1, y1, x2, y2 in [0, 1] of the frame, float64 ``(n, 4)``.
        scores: of each action, float64 ``(n, classes)``; 0 where the file has no row.
    """

    seconds: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray

    def at(self, second: float) -> int | None:
        """Index of a keyframe; None if the person is not in it."""
        places = np.flatnonzero(np.isclose(self.seconds, second))
        return int(places[0]) if len(places) else None

    def labelled(
        self, index: int, class_names: Sequence[str], least: float = 0.5
    ) -> tuple[list[float], list[tuple[str, float]]]:
        """The box of a keyframe, and the actions that score enough there, the best first.

        Args:
            index: of the keyframe.
            class_names: in the order of the columns of `scores`.
            least: in [0, 1].
        """
        scores = self.scores[index]
        order: list[int] = np.argsort(-scores, kind="stable").tolist()
        labels = [(class_names[i], float(scores[i])) for i in order if scores[i] >= least]
        return self.boxes[index].tolist(), labels

    def overlap(self, other: "Track") -> float:
        """Mean IoU with another track over all keyframes of either; 0 where only one is there.

        Args:
            other: such as that of the ground truth.
        """
        _, mine, its = np.intersect1d(self.seconds, other.seconds, return_indices=True)
        ious = intersection_over_union(self.boxes[mine], other.boxes[its])
        return float(ious.sum() / (len(self.seconds) + len(other.seconds) - len(ious)))

    def spans(self, column: int, least: float = 0.5) -> list[tuple[float, float]]:
        """Start and end, seconds, of the times at which an action scores enough.

        A keyframe stands for the second around it.

        Args:
            column: of the action in `scores`.
            least: in [0, 1].
        """
        spans: list[tuple[float, float]] = []
        for second in self.seconds[self.scores[:, column] >= least].tolist():
            start, end = second - 0.5, second + 0.5
            if spans and np.isclose(spans[-1][1], start):
                start = spans.pop()[0]
            spans.append((start, end))
        return spans


def tracks_of_video(
    table: BoxTable, video: str, action_ids: Sequence[int], scored: bool = True
) -> list[Track]:
    """Join a video's boxes into persons, keyframe by keyframe.

    The pairs of a person's last box and a new one with the greatest IoU are joined first; a box
    that fits no person begins a new one. Neither persons nor boxes need a number in the file.

    Args:
        table: from `read_csv`.
        video: its name in the table.
        action_ids: id of each column of the scores; rows with other ids are left out.
        scored: the last column has scores; False: it has the numbers of persons, as in ground
            truth, and each action scores 1.

    Returns:
        In the order of their first keyframe, and therein from left to right.
    """
    rows = table.of_videos([video])
    rows = rows.where(rows.has_box & (columns_of(rows.action, action_ids) >= 0))
    tracks: list[list[tuple[float, np.ndarray, np.ndarray]]] = []
    for second in np.unique(rows.second).tolist():
        boxes, scores = _scored_boxes(rows.where(rows.second == second), action_ids, scored)
        open_tracks = [track for track in tracks if second - track[-1][0] <= LONGEST_GAP]
        owners = _owners(np.array([track[-1][1] for track in open_tracks]).reshape(-1, 4), boxes)
        for box, row, owner in zip(boxes, scores, owners, strict=True):
            if owner is None:
                tracks.append([])
            track = tracks[-1] if owner is None else open_tracks[owner]
            track.append((second, box, row))
    columns = (zip(*track, strict=True) for track in tracks)
    return [Track(*(np.array(values) for values in track)) for track in columns]


def _scored_boxes(
    rows: BoxTable, action_ids: Sequence[int], scored: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The distinct boxes of a keyframe, from left to right, and their scores ``(n, classes)``."""
    boxes, which = np.unique(rows.boxes, axis=0, return_inverse=True)
    scores = np.zeros((len(boxes), len(action_ids)))
    values = np.nan_to_num(rows.score, nan=1.0) if scored else np.ones(len(rows.score))
    np.maximum.at(scores, (which.reshape(-1), columns_of(rows.action, action_ids)), values)
    return boxes, scores


def _owners(last: np.ndarray, boxes: np.ndarray) -> list[int | None]:
    """Index of the box in ``last`` ``(m, 4)`` that each of ``boxes`` ``(n, 4)`` goes on from."""
    owners: list[int | None] = [None] * len(boxes)
    if not len(last):
        return owners
    pairs = np.repeat(boxes, len(last), axis=0), np.tile(last, (len(boxes), 1))  # (n * m, 4)
    overlaps = intersection_over_union(*pairs)
    free = set(range(len(last)))
    for pair in np.argsort(-overlaps, kind="stable").tolist():
        box, owner = divmod(pair, len(last))
        if overlaps[pair] >= SAME_PERSON and owners[box] is None and owner in free:
            owners[box] = owner
            free.remove(owner)
    return owners
