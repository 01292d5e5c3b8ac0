"""AVA's protocols on arrays: which detections count, which are right, and the average precision.

Two implementations set the numbers that papers report, and they differ:

- ``official``, ActivityNet's ``get_ava_performance.py``: at most 50 rows of a keyframe count, those
  with the highest scores; keyframes that the ground truth does not name are left out; a
  ground-truth box goes to the detection with the highest score.
- ``pyslowfast``, PySlowFast's ``ava_eval_helper.py``: all rows count; those of keyframes without
  ground truth are wrong; a ground-truth box goes to the detection whose row comes first.

In both, a detection looks only at the ground-truth box of its class and keyframe with the greatest
IoU. It is right if that IoU is at least 0.5 and no other detection has taken the box. Boxes that
are inverted or have no area are left out (after the 50 are chosen). A class with ground truth and
no detection has an average precision of 0, one without ground truth NaN.

Ties never depend on the order of the rows of a keyframe, on a sort or on the machine:

- Detections of a class with equal scores are one point of its curve. That gives the least average
  precision of all orders they could come in: a tie never helps.
- Among rows with equal scores, those with the greater (action id, y1, x1, y2, x2) are among the 50.
  The official code chooses the same if they come in that order, and may choose others if not.
- Of ground-truth boxes with equal IoU, a detection looks at the first: ``official`` sorts them by
  falling person id, then by y1, x1, y2, x2; ``pyslowfast`` takes them as they come.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from datamodules.clips.boxes import intersection_over_union

PROTOCOLS = ("official", "pyslowfast")
ROWS_PER_KEYFRAME = 50  # of the official protocol
SCORES_AT_ONCE = 2_000_000  # bounds the memory of `highest_scores`
IOU = 0.5


class Detections(NamedTuple):
    """Boxes with one score each, of one class or of all.

    Attributes:
        keyframe: number of the keyframe, int64 ``(n,)``.
        box: x1, y1, x2, y2, float64 ``(n, 4)``.
        score: float ``(n,)``, not NaN.
    """

    keyframe: np.ndarray
    box: np.ndarray
    score: np.ndarray

    def rows(self, index: np.ndarray) -> "Detections":
        """The rows that int64 ``(k,)`` indices or a bool ``(n,)`` mask select."""
        return Detections(*(values[index] for values in self))


class GroundTruth(NamedTuple):
    """Boxes with one class each.

    Attributes:
        keyframe: number of the keyframe, int64 ``(m,)``.
        box: x1, y1, x2, y2, float64 ``(m, 4)``.
        column: index of the class, int64 ``(m,)``.
        person: id of the person, which decides between equal IoUs, float64 ``(m,)``.
    """

    keyframe: np.ndarray
    box: np.ndarray
    column: np.ndarray
    person: np.ndarray

    def in_order(self, protocol: str) -> "GroundTruth":
        """Sorted by class and keyframe, and therein as the protocol looks at them."""
        keys = (self.keyframe, self.column)
        if protocol == "official":
            x1, y1, x2, y2 = self.box.T
            keys = (x2, y2, x1, y1, -self.person, *keys)
        order = np.lexsort(keys)
        return GroundTruth(*(values[order] for values in self))


def highest_rows(detections: Detections, action_id: np.ndarray) -> np.ndarray:
    """Select the rows that are among the 50 of their keyframe.

    Args:
        detections: rows of all classes.
        action_id: int64 ``(n,)``.

    Returns:
        Index of the selected rows, int64; those of a keyframe by falling score.
    """
    order = np.lexsort((-detections.score, detections.keyframe))
    if not len(order):
        return order
    keyframe, score = detections.keyframe[order], detections.score[order]
    sizes = run_lengths(keyframe)
    starts = np.cumsum(sizes) - sizes
    # The score of the 50th row, or of the last one where a keyframe has fewer. Rows above it are
    # selected; rows that have it compete for the places that are left.
    lowest = np.repeat(score[starts + np.minimum(sizes, ROWS_PER_KEYFRAME) - 1], sizes)
    above, tied = order[score > lowest], order[score == lowest]
    x1, y1, x2, y2 = -detections.box[tied].T
    tied = tied[np.lexsort((x2, y2, x1, y1, -action_id[tied], detections.keyframe[tied]))]
    # Each keyframe has a tied row, so runs of tied rows and keyframes are the same in number.
    rivals = run_lengths(detections.keyframe[tied])
    places = ROWS_PER_KEYFRAME - np.add.reduceat(score > lowest, starts, dtype=np.int64)
    selected = count_up(rivals) < np.repeat(places, rivals)
    return np.concatenate([above, tied[selected]])


def highest_scores(keyframe: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Select the scores that can be among the 50 rows of their keyframe.

    Most scores are far from the 50. They are discarded here, before each score becomes a row of its
    own that `highest_rows` chooses from. Scores that tie with the 50th are all selected.

    Args:
        keyframe: int64 ``(n,)``, ascending.
        scores: float ``(n, classes)``; NaN is never selected.

    Returns:
        Row and column of each selected score, int64 ``(2, m)``.
    """
    sizes, classes = run_lengths(keyframe), scores.shape[1]
    starts = np.cumsum(sizes) - sizes
    selected = [np.zeros((2, 0), np.int64)]
    # Keyframes that have the same number of boxes are the lines of one matrix.
    for size in np.unique(sizes):
        first_boxes, candidates = starts[sizes == size], size * classes
        step = max(1, SCORES_AT_ONCE // candidates)
        for begin in range(0, len(first_boxes), step):
            rows = first_boxes[begin : begin + step, None] + np.arange(size)  # (k, size)
            lines = scores[rows].reshape(-1, candidates)  # (k, size * classes)
            # -inf ranks a NaN below all scores; a partition would put it above them.
            ranked = np.where(np.isnan(lines), -np.inf, lines)
            last = candidates - min(ROWS_PER_KEYFRAME, candidates)  # 50th place, ascending
            lowest = np.partition(ranked, last)[:, last, None]  # (k, 1)
            # No NaN is >= anything, so that none is selected even where the 50th score is -inf.
            index, column = np.nonzero((lines >= lowest).reshape(-1, classes))
            selected.append(np.stack([rows.reshape(-1)[index], column]))
    return np.concatenate(selected, axis=1)


def run_lengths(values: np.ndarray) -> np.ndarray:
    """Lengths of the runs of equal values of an array ``(n,)``, int64."""
    if not len(values):
        return np.zeros(0, np.int64)
    return np.diff(np.flatnonzero(np.r_[True, values[1:] != values[:-1], True]))


def count_up(lengths: np.ndarray) -> np.ndarray:
    """Concatenate 0, 1, ... n - 1 for each n of int64 ``(k,)``: int64 ``(sum,)``."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)


def right_detections(detections: Detections, truth: Detections, keyframes: int) -> np.ndarray:
    """Which detections of one class find a box of it.

    Args:
        detections: of two that look at the same box, the earlier row has it.
        truth: ground-truth boxes by keyframe, and therein as the protocol looks at them.
        keyframes: number of keyframes.

    Returns:
        bool ``(n,)``.
    """
    right = np.zeros(len(detections.score), bool)
    best, looked_at = greatest_overlaps(detections, truth, keyframes)
    rows = np.flatnonzero(best >= IOU)
    _, winners = np.unique(looked_at[rows], return_index=True)  # the first that looks has the box
    right[rows[winners]] = True
    return right


def greatest_overlaps(
    detections: Detections, truth: Detections, keyframes: int
) -> tuple[np.ndarray, np.ndarray]:
    """The box of its keyframe that each detection overlaps most.

    Args:
        detections: n of them.
        truth: boxes by keyframe; of boxes with equal IoU, the first counts.
        keyframes: number of keyframes.

    Returns:
        IoU with that box, float64 ``(n,)``, 0 where the keyframe has none; and its index in
        ``truth``, int64 ``(n,)``, -1 where there is none.
    """
    greatest, index = np.zeros(len(detections.score)), np.full(len(detections.score), -1)
    counts = np.bincount(truth.keyframe, minlength=keyframes)
    starts = np.cumsum(counts) - counts
    rows = np.flatnonzero(counts[detections.keyframe])
    if not len(rows):
        return greatest, index
    # Pairs of a detection and a box of its keyframe; the pairs of each detection are a run.
    boxes = counts[detections.keyframe[rows]]  # per detection
    runs = np.cumsum(boxes) - boxes
    of_truth = np.repeat(starts[detections.keyframe[rows]], boxes) + count_up(boxes)  # per pair
    iou = intersection_over_union(
        np.repeat(detections.box[rows], boxes, axis=0), truth.box[of_truth]
    )
    best = np.maximum.reduceat(iou, runs)
    is_best = np.flatnonzero(iou == np.repeat(best, boxes))
    first = is_best[np.searchsorted(is_best, runs)]  # the first pair of each run with the best IoU
    greatest[rows], index[rows] = best, of_truth[first]
    return greatest, index


def average_precision(score: np.ndarray, right: np.ndarray, boxes: int) -> float:
    """Area under the curve of precision over recall.

    The precision at each recall is the greatest at that recall or a higher one.

    Args:
        score: ``(n,)``; detections with equal scores are one point.
        right: bool ``(n,)``.
        boxes: number of ground-truth boxes.

    Returns:
        In [0, 1]; 0 without detections, NaN without boxes.
    """
    if not boxes:
        return float("nan")
    if not right.any():
        return 0.0
    # Scores below that of the last right detection add no area, and most detections have such.
    relevant = score >= score[right].min()
    score, right = score[relevant], right[relevant]
    order = np.argsort(-score, kind="stable")
    score, hits = score[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.r_[score[1:] != score[:-1], True])
    precision = hits[ends] / (ends + 1)
    recall = np.r_[0, hits[ends] / boxes]
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    gains = np.diff(recall)
    return float(np.sum((gains * envelope)[gains > 0]))


def average_precisions(
    classes: Iterable[Detections], truth: GroundTruth, keyframes: int, protocol: str
) -> np.ndarray:
    """Average precision of each class.

    Args:
        classes: the detections that count, class by class; of two that look at the same box, the
            earlier row has it.
        truth: ground truth of all classes.
        keyframes: number of keyframes.
        protocol: one of `PROTOCOLS`.

    Returns:
        float64 ``(classes,)``; NaN of those without ground truth.
    """
    judged = judged_classes(classes, truth, keyframes, protocol)
    return np.array([average_precision(d.score, right, len(b.score)) for d, b, right in judged])


def judged_classes(
    classes: Iterable[Detections], truth: GroundTruth, keyframes: int, protocol: str
) -> Iterator[tuple[Detections, Detections, np.ndarray]]:
    """Judge the detections of each class; arguments as in `average_precisions`.

    Yields:
        The class's detections without those that have no area, its ground-truth boxes as the
        protocol looks at them, and which detections are right, bool ``(n,)``.
    """
    truth = truth.in_order(protocol)
    for column, detections in enumerate(classes):
        rows = slice(*np.searchsorted(truth.column, [column, column + 1]))
        boxes = Detections(truth.keyframe[rows], truth.box[rows], truth.person[rows])
        x1, y1, x2, y2 = detections.box.T
        valid = (x1 < x2) & (y1 < y2)
        if not valid.all():
            detections = detections.rows(valid)
        yield detections, boxes, right_detections(detections, boxes, keyframes)
