"""Results of COCO's metric, for people and for programs."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hiera_video.metrics.plain import plain, shown

# In the order of pycocotools: AP over IoUs of 0.5 to 0.95, at 0.5, at 0.75, of small, medium and
# large objects; recall with 1, 10 and 100 detections a picture, and of objects by size.
MEASURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
MEASURES += ("AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
LOGGED = MEASURES[:6]


class CocoResults(NamedTuple):
    """COCO's numbers.

    Attributes:
        class_names: of all categories, by ascending id.
        category_ids: likewise.
        numbers: the `MEASURES` of ``box`` and ``mask``, in [0, 1]; NaN where nothing counts.
        per_class: of ``box`` and ``mask``, the AP of each class, float64 ``(classes,)``; NaN of a
            class without objects.
        objects: number of objects of each class that are no crowds, int64 ``(classes,)``.
    """

    class_names: Sequence[str]
    category_ids: Sequence[int]
    numbers: Mapping[str, Mapping[str, float]]
    per_class: Mapping[str, np.ndarray]
    objects: np.ndarray

    def values(self) -> dict[str, float]:
        """For logs: ``box_AP``, ``box_AP50``, ..., ``mask_AP``, ..."""
        return {
            f"{kind}_{name}": numbers[name]
            for kind, numbers in self.numbers.items()
            for name in LOGGED
        }

    def summary(self) -> dict[str, Any]:
        """Plain values, as in ``results.json`` and ``evaluate --json``; None stands for NaN.

        ``box`` and ``mask``: the `MEASURES`; ``per_class``: AP of each of both; ``objects``: number
        of objects of each class.
        """
        return {
            **{
                kind: {name: plain(value) for name, value in numbers.items()}
                for kind, numbers in self.numbers.items()
            },
            "per_class": {
                kind: {name: plain(ap) for name, ap in zip(self.class_names, aps, strict=True)}
                for kind, aps in self.per_class.items()
            },
            "objects": dict(zip(self.class_names, self.objects.tolist(), strict=True)),
        }

    def describe(self) -> str:
        """A table of all classes and, below it, the numbers of boxes and masks."""
        kinds = list(self.numbers)
        lines = ["".join(f"{kind + ' AP':>9}" for kind in kinds) + f" {'objects':>8}   id  class"]
        rows = zip(self.objects.tolist(), self.category_ids, self.class_names, strict=True)
        for i, (count, category, name) in enumerate(rows):
            aps = "".join(f"{shown(self.per_class[kind][i]):>9}" for kind in kinds)
            lines.append(f"{aps} {count:8,} {category:4}  {name}")
        for kind, numbers in self.numbers.items():
            texts = "  ".join(f"{name} {shown(value)}" for name, value in numbers.items())
            lines.append(f"{kind}: {texts}")
        return "\n".join(lines)
