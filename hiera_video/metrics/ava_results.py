"""What AVA's metric says, for people and for programs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

METRIC = "mAP@0.5IOU"
# Ids of AVA's 80 actions: movements of one person, with objects, with other persons.
GROUPS = {"pose": range(1, 15), "object": range(15, 64), "person": range(64, 81)}


class AVAResults(NamedTuple):
    """Average precision of each class, by one protocol.

    Attributes:
        class_names: in the order of the columns.
        action_ids: as the annotations have them, in the same order.
        protocol: ``official`` or ``pyslowfast``.
        average_precision: float64 ``(classes,)`` in [0, 1]; NaN of a class without ground truth.
        boxes: int64 ``(classes,)`` of the ground truth.
    """

    class_names: Sequence[str]
    action_ids: Sequence[int]
    protocol: str
    average_precision: np.ndarray
    boxes: np.ndarray

    def mean(self, ids: range | None = None) -> float:
        """The mAP of all classes, or of those with some ids; NaN if none has ground truth."""
        here = [ids is None or action_id in ids for action_id in self.action_ids]
        known = np.array(here, bool) & (self.boxes > 0)
        return float(self.average_precision[known].mean()) if known.any() else float("nan")

    def groups(self) -> dict[str, float]:
        """The mAP of AVA's ``pose`` (ids 1-14), ``object`` (15-63) and ``person`` (64-80) classes.

        Empty unless there are classes of all three, as the ids of other data mean other actions.
        """
        if not all(any(i in ids for i in self.action_ids) for ids in GROUPS.values()):
            return {}
        return {name: self.mean(ids) for name, ids in GROUPS.items()}

    def values(self) -> dict[str, float]:
        """``mAP_official`` and ``mAP_official_pose``, ``..._object``, ``..._person``, for logs."""
        name = f"mAP_{self.protocol}"
        return {name: self.mean()} | {f"{name}_{g}": m for g, m in self.groups().items()}

    def summary(self) -> dict[str, Any]:
        """Plain values, as ``evaluate --json`` prints them.

        ``mAP@0.5IOU`` and ``protocol``; ``groups``; ``per_class``: average precision of each class
        with ground truth; ``boxes_per_class``: of the ground truth, of all classes. None: no
        ground truth.
        """
        rows = list(zip(self.class_names, self.average_precision, self.boxes, strict=True))
        return {
            METRIC: _plain(self.mean()),
            "protocol": self.protocol,
            "groups": {name: _plain(mean) for name, mean in self.groups().items()},
            "per_class": {name: float(ap) for name, ap, boxes in rows if boxes},
            "boxes_per_class": {name: int(boxes) for name, _, boxes in rows},
        }

    def describe(self) -> str:
        """The same as a text."""
        lines = [f"{'AP':>7} {'boxes':>8}   id  class ({self.protocol} protocol)"]
        rows = zip(
            self.average_precision, self.boxes, self.action_ids, self.class_names, strict=True
        )
        lines += [f"{_shown(ap):>7} {n:8,} {i:4}  {name}" for ap, n, i, name in rows]
        means = {"all": self.mean(), **self.groups()}
        texts = [f"{name} {_shown(mean)}" for name, mean in means.items()]
        known = int((self.boxes > 0).sum())
        lines.append(
            f"{METRIC} ({self.protocol} protocol) of {known} classes with ground truth: "
            + ", ".join(texts)
        )
        return "\n".join(lines)


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
