"""Results of AVA's metric, for people and for programs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hiera_video.metrics.ava_errors import ErrorKinds
from hiera_video.metrics.plain import plain, shown

METRIC = "mAP@0.5IOU"
# Ids of AVA's 80 actions: movements of one person, with objects, with other persons.
GROUPS = {"pose": range(1, 15), "object": range(15, 64), "person": range(64, 81)}


class AVAResults(NamedTuple):
    """Average precision of each class, by one protocol.

    Attributes:
        class_names: names of the classes.
        action_ids: id of each class, as in the annotation.
        protocol: ``official`` or ``pyslowfast``.
        average_precision: float64 ``(classes,)`` in [0, 1]; NaN of a class without ground truth.
        boxes: number of ground-truth boxes, int64 ``(classes,)``.
        errors: kinds of errors, if they were asked for.
    """

    class_names: Sequence[str]
    action_ids: Sequence[int]
    protocol: str
    average_precision: np.ndarray
    boxes: np.ndarray
    errors: ErrorKinds | None = None

    def mean(self, ids: range | None = None) -> float:
        """The mAP of all classes, or of those with ``ids``; NaN if none has ground truth."""
        chosen = [ids is None or action_id in ids for action_id in self.action_ids]
        counted = np.array(chosen, bool) & (self.boxes > 0)
        return float(self.average_precision[counted].mean()) if counted.any() else float("nan")

    def groups(self) -> dict[str, float]:
        """The mAP of AVA's ``pose`` (ids 1-14), ``object`` (15-63) and ``person`` (64-80) classes.

        Empty unless all three have classes, as ids of other data sets mean other actions.
        """
        if not all(any(i in ids for i in self.action_ids) for ids in GROUPS.values()):
            return {}
        return {name: self.mean(ids) for name, ids in GROUPS.items()}

    def values(self) -> dict[str, float]:
        """Means for logs: ``mAP_official``, ``mAP_official_pose`` and the other groups."""
        name = f"mAP_{self.protocol}"
        return {name: self.mean()} | {f"{name}_{g}": m for g, m in self.groups().items()}

    def summary(self) -> dict[str, Any]:
        """Plain values, as ``evaluate --json`` prints them.

        ``mAP@0.5IOU``, ``protocol``, ``groups``, ``per_class`` (average precision of each class
        with ground truth) and ``boxes_per_class`` (ground-truth boxes of all classes). A mean is
        None where there is no ground truth. ``errors``, if they were asked for: see `ErrorKinds`.
        """
        rows = list(zip(self.class_names, self.average_precision, self.boxes, strict=True))
        return {
            METRIC: plain(self.mean()),
            "protocol": self.protocol,
            "groups": {name: plain(mean) for name, mean in self.groups().items()},
            "per_class": {name: float(ap) for name, ap, boxes in rows if boxes},
            "boxes_per_class": {name: int(boxes) for name, _, boxes in rows},
            **({} if self.errors is None else {"errors": self.errors.summary()}),
        }

    def describe(self) -> str:
        """A table of all classes and, in its last line, the means."""
        lines = [f"{'AP':>7} {'boxes':>8}   id  class ({self.protocol} protocol)"]
        rows = zip(
            self.average_precision, self.boxes, self.action_ids, self.class_names, strict=True
        )
        lines += [f"{shown(ap):>7} {n:8,} {i:4}  {name}" for ap, n, i, name in rows]
        means = {"all": self.mean(), **self.groups()}
        texts = [f"{name} {shown(mean)}" for name, mean in means.items()]
        counted = int((self.boxes > 0).sum())
        lines.append(
            f"{METRIC} ({self.protocol} protocol) of {counted} classes with ground truth: "
            + ", ".join(texts)
        )
        return "\n".join(lines + ([] if self.errors is None else ["", self.errors.describe()]))
