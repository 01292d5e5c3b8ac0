"""What kinds of error an action detector makes (after Hoiem et al., ECCV 2012, section 2).

Each detection that counts is of one kind, the first of these that fits:

- ``right``: as in `ava_matching`;
- ``duplicate``: IoU of at least 0.5 with a box of its class, which another detection has;
- ``confusion``: such an IoU with a person of another class: the person is found, the action wrong;
- ``localisation``: IoU of at least 0.1 with a box of its class;
- ``background``: anything else.

In that paper, localisation comes before confusion. Here people stand close together, and their
boxes overlap: a box that fits one person should not count as a badly placed one of the neighbour.
"""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from hiera_video.metrics.ava_matching import (
    IOU,
    Detections,
    GroundTruth,
    average_precision,
    greatest_overlaps,
    judged_classes,
)
from hiera_video.metrics.plain import plain

KINDS = ("right", "duplicate", "confusion", "localisation", "background")
NEAR = 0.1  # least IoU of a badly placed box


class ErrorKinds(NamedTuple):
    """How many detections of each class are of each kind.

    Attributes:
        class_names: names of the classes.
        counts: the first n detections of each class by their kind, with n the number of its
            ground-truth boxes; those that tie with the last of them count, too. int64
            ``(classes, 5)``, in the order of `KINDS`.
        missed: ground-truth boxes that no detection has, at any score, int64 ``(classes,)``.
        without: average precision if the errors of a kind were left out, float64 ``(classes, 4)``,
            in the order of ``KINDS[1:]``; NaN of a class without ground truth.
    """

    class_names: Sequence[str]
    counts: np.ndarray
    missed: np.ndarray
    without: np.ndarray

    def shares(self) -> dict[str, float]:
        """Share of each kind among the counted detections of all classes; NaN if there are none."""
        total = self.counts.sum()
        values = self.counts.sum(axis=0) / total if total else np.full(len(KINDS), np.nan)
        return dict(zip(KINDS, values.tolist(), strict=True))

    def means(self) -> dict[str, float]:
        """The mAP if the errors of a kind were left out, over classes with ground truth."""
        counted = ~np.isnan(self.without[:, 0])
        means = self.without[counted].mean(axis=0) if counted.any() else np.full(4, np.nan)
        return dict(zip(KINDS[1:], means.tolist(), strict=True))

    def summary(self) -> dict[str, Any]:
        """Plain values: ``shares``, ``mAP_without``, and ``per_class`` counts with ``missed``."""
        rows = zip(self.class_names, self.counts.tolist(), self.missed.tolist(), strict=True)
        return {
            "shares": {name: plain(value) for name, value in self.shares().items()},
            "mAP_without": {name: plain(value) for name, value in self.means().items()},
            "per_class": {
                name: dict(zip(KINDS, counts, strict=True)) | {"missed": missed}
                for name, counts, missed in rows
            },
        }

    def describe(self) -> str:
        """A table of all classes and, below it, the shares and the mAP without each kind."""
        names = (*KINDS, "missed")
        lines = [" ".join(f"{name:>12}" for name in names) + "  class"]
        rows = zip(self.class_names, self.counts.tolist(), self.missed.tolist(), strict=True)
        for name, counts, missed in rows:
            lines.append(" ".join(f"{count:12,}" for count in (*counts, missed)) + f"  {name}")
        shares = " ".join(f"{share:12.1%}" for share in self.shares().values())
        lines.append(f"{shares} {self.missed.sum():12,}  all classes")
        without = ", ".join(f"{kind} {mean:.4f}" for kind, mean in self.means().items())
        lines.append(f"mAP if errors of a kind were left out: {without}")
        return "\n".join(lines)


def error_kinds(
    classes: Iterable[Detections],
    truth: GroundTruth,
    keyframes: int,
    protocol: str,
    class_names: Sequence[str],
) -> ErrorKinds:
    """Find the kind of each detection.

    Args:
        classes: the detections that count, class by class, as for `average_precisions`.
        truth: ground truth of all classes.
        keyframes: number of keyframes.
        protocol: one of `PROTOCOLS`.
        class_names: names of the classes.
    """
    persons = _persons(truth)
    counts, missed, without = [], [], []
    for detections, boxes, right in judged_classes(classes, truth, keyframes, protocol):
        kind = _kinds(detections, boxes, right, persons, keyframes)
        score, number = detections.score, len(boxes.score)
        first = min(number, len(score))
        lowest = np.partition(score, -first)[-first] if first else np.inf
        counts.append(np.bincount(kind[score >= lowest], minlength=len(KINDS)))
        missed.append(number - int(right.sum()))
        rest = [kind != error for error in range(1, len(KINDS))]
        without.append([average_precision(score[r], right[r], number) for r in rest])
    return ErrorKinds(class_names, np.array(counts), np.array(missed), np.array(without))


def _kinds(
    detections: Detections,
    boxes: Detections,
    right: np.ndarray,
    persons: Detections,
    keyframes: int,
) -> np.ndarray:
    """Index in `KINDS` of each detection of one class, int64 ``(n,)``."""
    of_class, _ = greatest_overlaps(detections, boxes, keyframes)
    of_any, _ = greatest_overlaps(detections, persons, keyframes)
    conditions = [right, of_class >= IOU, of_any >= IOU, of_class >= NEAR]
    return np.select(conditions, range(len(conditions)), len(KINDS) - 1)


def _persons(truth: GroundTruth) -> Detections:
    """The boxes of all classes, each once, by keyframe."""
    rows = np.unique(np.column_stack([truth.keyframe, truth.box]), axis=0)
    return Detections(rows[:, 0].astype(np.int64), rows[:, 1:], np.zeros(len(rows)))
