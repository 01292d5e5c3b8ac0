"""Mean average precision on AVA, exact for boxes in any order and on any number of processes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from datamodules.ava.box_table import KEYS_PER_VIDEO
from hiera_video.metrics.ava_annotations import Annotations
from hiera_video.metrics.ava_boxes import DetectedBoxes, sorted_boxes
from hiera_video.metrics.ava_matching import PROTOCOLS
from hiera_video.metrics.ava_results import AVAResults


class AVAMeanAveragePrecision(Metric):
    """mAP at IoU 0.5 of boxes with scores, by one of the protocols of `ava_matching`.

    The ground truth is set as a whole, so every keyframe counts, with or without detected boxes.
    Boxes may come in any order and in any batches, on any process. A box that comes again for the
    same video and second, as padding does, counts once, with the greater of its scores.
    ``pyslowfast`` takes rows in the order of `detections`.

    Coordinates in float32 are read as the shortest decimals that they stand for, 0.077 and not
    0.0769999996, so that the results equal those from csv files.

    Args:
        class_names: names of the classes, in the order of the columns of scores.
        action_ids: id of each class, as in the label map.
        protocol: ``official`` or ``pyslowfast``.

    Raises:
        ValueError: there is no such protocol, or names and ids do not fit each other.
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
            raise ValueError(f"protocol must be one of {', '.join(PROTOCOLS)}, not {protocol!r}")
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
        """Set the ground truth of all keyframes.

        Args:
            video: int ``(m,)`` in [0, 2^23).
            second: float or int ``(m,)``.
            boxes: x1, y1, x2, y2 in [0, 1] of the full frame, float ``(m, 4)``.
            action_id: int ``(m,)``; see `Annotations`.
            person_id: float or int ``(m,)``; see `Annotations`.

        Raises:
            ValueError: as in `Annotations`.
        """
        self.annotations = Annotations(video, second, boxes, action_id, self.action_ids, person_id)

    def update(self, boxes: Tensor, scores: Tensor, video: Tensor, second: Tensor) -> None:
        """Add N boxes.

        Args:
            boxes: x1, y1, x2, y2 in [0, 1] of the full frame, float ``(N, 4)``. N may be 0.
            scores: float ``(N, classes)``; NaN does not count.
            video: int64 ``(N,)``, as in the ground truth.
            second: float64 or int64 ``(N,)``, as in the ground truth.

        Raises:
            ValueError: shapes are wrong.
        """
        count, classes = len(boxes), len(self.class_names)
        shapes = [tuple(t.shape) for t in (boxes, scores, video, second)]
        if shapes != [(count, 4), (count, classes), (count,), (count,)]:
            raise ValueError(
                f"expected boxes (N, 4), scores (N, {classes}), video and second (N,), "
                f"not {', '.join(map(str, shapes))}"
            )
        # As `keyframe_keys`, but on the device of the boxes, so that no batch waits for it.
        if second.is_floating_point():
            microseconds = (second.double() * 1e6).round().long()
        else:
            microseconds = second.long() * 1_000_000
        for state, rows in (
            (self.keyframe, video.long() * KEYS_PER_VIDEO + microseconds),
            (self.boxes, boxes.detach().float()),
            (self.scores, scores.detach().float()),
        ):
            assert isinstance(state, list)
            state.append(rows.to(self.device))

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Exchange states between processes; one without boxes takes part with empty states."""
        if not self.keyframe:
            nothing = torch.zeros(0, dtype=torch.int64, device=self.device)
            empty = [torch.zeros(0, n, device=self.device) for n in (4, len(self.class_names))]
            self.keyframe, self.boxes, self.scores = [nothing], [empty[0]], [empty[1]]
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """The means of `AVAResults.values`, such as ``mAP_official``, float64 scalars in [0, 1]."""
        values = self._results().values()
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def results(self) -> AVAResults:
        """Results of all processes, which must all call this.

        Raises:
            ValueError: no ground truth was set.
        """
        with self.sync_context(self.dist_sync_fn):
            return self._results()

    def detections(self) -> DetectedBoxes:
        """The boxes of all processes, each once; all processes must call this."""
        with self.sync_context(self.dist_sync_fn):
            return self._detections()

    def _results(self) -> AVAResults:
        if self.annotations is None:
            raise ValueError("the metric has no ground truth; call set_ground_truth first")
        precision = self.annotations.evaluate_scores(self._detections(), self.protocol)
        boxes = self.annotations.boxes_per_class()
        return AVAResults(self.class_names, self.action_ids, self.protocol, precision, boxes)

    def _detections(self) -> DetectedBoxes:
        if not len(self.keyframe):
            return sorted_boxes(
                np.zeros(0, np.int64),
                np.zeros((0, 4), np.float32),
                np.zeros((0, len(self.class_names)), np.float32),
            )
        states = (self.keyframe, self.boxes, self.scores)
        return sorted_boxes(*(dim_zero_cat(state).cpu().numpy() for state in states))
