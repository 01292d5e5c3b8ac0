"""AVA's protocols on arrays: which detections count, which are right, and the average precision.

Two implementations set the numbers that papers report, and they differ:

- ``official``, ActivityNet's ``get_ava_performance.py``: at most 50 rows of a keyframe count, those
  of the highest scores; keyframes that the ground truth does not name are left out; a
  ground-truth box goes to the detection of the highest score.
- ``pyslowfast``, PySlowFast's ``ava_eval_helper.py``: all rows count; those of keyframes without
  ground truth are wrong; a ground-truth box goes to the detection whose row comes first.

Both: a detection looks at one ground-truth box of its class and keyframe only, that of the
greatest IoU, and is right if the IoU is at least 0.5 and no other has taken that box. Boxes without
area or inverted are left out (after the 50 are chosen). A class with ground truth and no detection
has 0, one without ground truth NaN.

Ties never depend on the order of the rows of a keyframe, on a sort or on the machine:

- Detections of a class that score the same are one point of its curve. That is the least average
  precision of all orders they could come in: a tie never helps.
- Among rows that score the same, those with the greater (action id, y1, x1, y2, x2) are among the
  50. The official code has the same if they come in that order, and else may choose others.
- Of ground-truth boxes with the same IoU, a detection looks at the first: ``official`` sorts them
  by falling person id, then by y1, x1, y2, x2; ``pyslowfast`` takes them as they come.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

PROTOCOLS = ("official", "pyslowfast")
ROWS_PER_KEYFRAME = 50  # of the official protocol
IOU = 0.5
SECONDS = 2**40 / 1e6  # a keyframe's key holds microseconds in 40 bits


class Detections(NamedTuple):
    """Rows of one class, or of all.

    Attributes:
        keyframe: int64 ``(n,)``: number of the keyframe.
        box: float64 ``(n, 4)``: x1, y1, x2, y2.
        score: float ``(n,)``, no NaN.
    """

    keyframe: np.ndarray
    box: np.ndarray
    score: np.ndarray

    def rows(self, which: np.ndarray) -> "Detections":
        """Some of them."""
        return Detections(*(values[which] for values in self))


class GroundTruth(NamedTuple):
    """Boxes of all classes.

    Attributes:
        keyframe: int64 ``(m,)``: number of the keyframe.
        box: float64 ``(m, 4)``: x1, y1, x2, y2.
        column: int64 ``(m,)``: of the class.
        person: float64 ``(m,)``: id of the person; decides between equal IoUs.
    """

    keyframe: np.ndarray
    box: np.ndarray
    column: np.ndarray
    person: np.ndarray

    def in_order(self, protocol: str) -> "GroundTruth":
        """Sorted by class and keyframe, and in each as the protocol looks at them."""
        keys = (self.keyframe, self.column)
        if protocol == "official":
            x1, y1, x2, y2 = self.box.T
            keys = (x2, y2, x1, y1, -self.person, *keys)
        order = np.lexsort(keys)
        return GroundTruth(*(values[order] for values in self))


def keyframe_keys(video: np.ndarray, second: np.ndarray) -> np.ndarray:
    """One int64 for each video and second; seconds are equal where six decimals are.

    Args:
        video: int ``(n,)``, in [0, 2^23).
        second: float64 ``(n,)``, in [0, 2^40 microseconds), which are 12 days.
    """
    return (video.astype(np.int64) << 40) | np.rint(second * 1e6).astype(np.int64)


def highest_rows(detections: Detections, action_id: np.ndarray) -> np.ndarray:
    """The rows that are among the 50 of their keyframe, int64; in each, by falling score.

    Args:
        detections: of all classes.
        action_id: int64 ``(n,)``.
    """
    order = np.lexsort((-detections.score, detections.keyframe))
    keyframe, score = detections.keyframe[order], detections.score[order]
    sizes = run_lengths(keyframe)
    starts = np.cumsum(sizes) - sizes
    full = sizes > ROWS_PER_KEYFRAME
    if not full.any():
        return order
    least = np.full(len(starts), -np.inf)
    least[full] = score[starts[full] + ROWS_PER_KEYFRAME - 1]
    above = score > np.repeat(least, sizes)
    above |= np.repeat(~full, sizes)
    # Rows at the least score fill what places are left, the greatest first.
    tied = order[~above & (score == np.repeat(least, sizes))]
    x1, y1, x2, y2 = (-detections.box[tied]).T
    tied = tied[np.lexsort((x2, y2, x1, y1, -action_id[tied], detections.keyframe[tied]))]
    rivals = run_lengths(detections.keyframe[tied])
    places = np.arange(len(tied)) - np.repeat(np.cumsum(rivals) - rivals, rivals)
    free = ROWS_PER_KEYFRAME - np.add.reduceat(above, starts, dtype=np.int64)[full]
    return np.concatenate([order[above], tied[places < np.repeat(free, rivals)]])


def run_lengths(values: np.ndarray) -> np.ndarray:
    """Lengths of the runs of equal values, int64."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.diff(np.flatnonzero(np.r_[True, values[1:] != values[:-1], True]))


def right_detections(detections: Detections, truth: Detections, keyframes: int) -> np.ndarray:
    """Which detections of one class find a box of it.

    Args:
        detections: the earlier row has a box that two look at.
        truth: ground-truth boxes, by keyframe and in each as the protocol looks at them.
        keyframes: numbers of keyframes are below it.

    Returns:
        bool ``(n,)``.
    """
    right = np.zeros(len(detections.score), bool)
    counts = np.bincount(truth.keyframe, minlength=keyframes)
    starts = np.cumsum(counts) - counts
    rows = np.flatnonzero(counts[detections.keyframe])
    if not len(rows):
        return right
    # Pairs of a detection and a box of its keyframe, the boxes of each detection in a run.
    boxes = counts[detections.keyframe[rows]]
    begin = np.cumsum(boxes) - boxes
    place = np.arange(boxes.sum()) - np.repeat(begin, boxes)
    of_truth = np.repeat(starts[detections.keyframe[rows]], boxes) + place
    iou = box_iou(np.repeat(detections.box[rows], boxes, axis=0), truth.box[of_truth])
    best = np.maximum.reduceat(iou, begin)
    reaches = np.flatnonzero(iou == np.repeat(best, boxes))
    first = reaches[np.searchsorted(reaches, begin)]  # of the boxes with the greatest IoU
    near = best >= IOU
    rows, taken = rows[near], of_truth[first][near]
    _, winners = np.unique(taken, return_index=True)  # the first that looks at a box has it
    right[rows[winners]] = True
    return right


def box_iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """IoU of pairs of boxes, float64 ``(n, 4)`` each, of which no two areas add up to 0."""
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    common = np.prod(np.maximum(high - low, 0), axis=1)
    areas = [np.prod(box[:, 2:] - box[:, :2], axis=1) for box in (first, second)]
    return common / (areas[0] + areas[1] - common)


def average_precision(score: np.ndarray, right: np.ndarray, boxes: int) -> float:
    """Area under the curve of precision over recall, each precision the greatest from there on.

    Args:
        score: ``(n,)``; detections that score the same are one point.
        right: bool ``(n,)``.
        boxes: of the ground truth.

    Returns:
        In [0, 1]; 0 without detections, NaN without boxes.
    """
    if not boxes:
        return float("nan")
    # Past the last right one there is nothing to gain, and most detections are there.
    if not right.any():
        return 0.0
    some = score >= score[right].min()
    score, right = score[some], right[some]
    order = np.argsort(-score, kind="stable")
    score, found = score[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.r_[score[1:] != score[:-1], True])
    precision = found[ends] / (ends + 1)
    recall = np.r_[0, found[ends] / boxes]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    gains = np.diff(recall)
    return float(np.sum((gains * envelope)[gains > 0]))


def average_precisions(
    classes: Iterable[Detections], truth: GroundTruth, keyframes: int, protocol: str
) -> np.ndarray:
    """Average precision of each class.

    Args:
        classes: the detections that count, of one class after the other; the earlier row has a
            box that two look at.
        truth: of all classes.
        keyframes: numbers of keyframes are below it.
        protocol: one of PROTOCOLS.

    Returns:
        float64 ``(classes,)``; NaN of those without ground truth.
    """
    truth = truth.in_order(protocol)
    found = []
    for column, detections in enumerate(classes):
        here = slice(*np.searchsorted(truth.column, [column, column + 1]))
        boxes = Detections(truth.keyframe[here], truth.box[here], truth.person[here])
        x1, y1, x2, y2 = detections.box.T
        valid = (x1 < x2) & (y1 < y2)
        if not valid.all():
            detections = detections.rows(valid)
        right = right_detections(detections, boxes, keyframes)
        found.append(average_precision(detections.score, right, len(boxes.score)))
    return np.array(found)
