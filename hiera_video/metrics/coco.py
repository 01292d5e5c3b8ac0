"""COCO's average precision of boxes and masks, exact on any number of processes.

torchmetrics' ``MeanAveragePrecision`` is not used: it keeps boxes as float32, counts only pictures
that it was shown, and orders detections of equal score by process.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from datamodules.coco.rle import encode_part, to_text
from datamodules.coco.segmentation import has_mask
from hiera_video.metrics.coco_evaluation import evaluate_detections
from hiera_video.metrics.coco_results import CocoResults

STATES = {"place": (2,), "numbers": (5,), "length": (), "text": ()}


class DetectedMask(NamedTuple):
    """A mask as the part of a picture that its box touches.

    Attributes:
        part: bool ``(h, w)``.
        corner: row and column of its upper left pixel in the picture.
    """

    part: Tensor
    corner: tuple[int, int]


class CocoAveragePrecision(Metric):
    """AP of boxes and masks over all pictures of an annotation file, with or without detections.

    Pictures may come in any order, each of them once, on any process.

    Args:
        category_ids: id of each label, from label 1 on.
    """

    full_state_update = False
    higher_is_better = True
    place: list[Tensor] | Tensor
    numbers: list[Tensor] | Tensor
    length: list[Tensor] | Tensor
    text: list[Tensor] | Tensor

    def __init__(self, category_ids: Sequence[int]) -> None:
        super().__init__()
        self.category_ids = tuple(category_ids)
        self.truth: Mapping[str, Any] | None = None
        for name in STATES:
            self.add_state(name, [], dist_reduce_fx="cat")

    def set_ground_truth(self, truth: Mapping[str, Any]) -> None:
        """Set the content of the annotation file, as in `evaluate_detections`."""
        self.truth = truth

    @property
    def has_masks(self) -> bool:
        """Whether all objects of the ground truth have a mask; else only boxes are evaluated."""
        return all(map(has_mask, self._truth()["annotations"]))

    def update(
        self,
        image: int,
        boxes: Tensor,
        labels: Tensor,
        scores: Tensor,
        masks: Sequence[DetectedMask],
    ) -> None:
        """Add the detections of a picture, N in all.

        Args:
            image: index of the picture in the annotation's ``images``.
            boxes: x1, y1, x2, y2 in pixels of the file, float ``(N, 4)``.
            labels: from 1 on, int64 ``(N,)``.
            scores: float ``(N,)``, in descending order.
            masks: the mask of each.
        """
        picture = self._truth()["images"][image]
        size = picture["height"], picture["width"]
        runs = [encode_part(m.part.cpu().numpy(), *m.corner, *size) for m in masks]
        texts = [to_text(counts).encode() for counts in runs]
        boxes = boxes.detach().cpu().double()
        sides = torch.cat([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], dim=1)
        for name, rows in {
            "place": torch.stack([torch.full_like(labels, image), labels], dim=1),  # (N, 2)
            "numbers": torch.cat([scores.detach().cpu().double()[:, None], sides], dim=1),  # (N, 5)
            "length": torch.tensor([len(text) for text in texts], dtype=torch.int64),  # (N,)
            "text": torch.frombuffer(bytearray(b"".join(texts) or b"\0"), dtype=torch.uint8)[
                : sum(map(len, texts))
            ],
        }.items():
            getattr(self, name).append(rows.to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Exchange states between processes; one without pictures takes part with empty states."""
        if not self.place:
            types = (torch.int64, torch.float64, torch.int64, torch.uint8)
            for (name, shape), dtype in zip(STATES.items(), types, strict=True):
                setattr(self, name, [torch.zeros(0, *shape, dtype=dtype, device=self.device)])
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """The numbers of `CocoResults.values`, float64 scalars in [0, 1]."""
        values = evaluate_detections(self._truth(), self._detections()).values()
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def results(self) -> CocoResults:
        """Results of all processes, which must all call this.

        Raises:
            ValueError: no ground truth was set.
        """
        with self.sync_context(self.dist_sync_fn):
            return evaluate_detections(self._truth(), self._detections())

    def detections(self) -> list[dict[str, Any]]:
        """The detections of all processes as in a file of results; all processes must call this.

        They are sorted by picture, in the order of the annotation's ``images``.
        """
        with self.sync_context(self.dist_sync_fn):
            return self._detections()

    def _truth(self) -> Mapping[str, Any]:
        if self.truth is None:
            raise ValueError("the metric has no ground truth; call set_ground_truth first")
        return self.truth

    def _detections(self) -> list[dict[str, Any]]:
        if not len(self.place):
            return []
        place, numbers, length, text = (
            dim_zero_cat(getattr(self, name)).cpu().numpy() for name in STATES
        )
        images, ends = self._truth()["images"], np.cumsum(length)
        order = np.argsort(place[:, 0], kind="stable")
        rows = []
        for i in order.tolist():
            image = images[place[i, 0]]
            rows.append(
                {
                    "image_id": image["id"],
                    "category_id": self.category_ids[place[i, 1] - 1],
                    "bbox": numbers[i, 1:].tolist(),
                    "score": float(numbers[i, 0]),
                    "segmentation": {
                        "size": [image["height"], image["width"]],
                        "counts": text[ends[i] - length[i] : ends[i]].tobytes().decode("ascii"),
                    },
                }
            )
        return rows
