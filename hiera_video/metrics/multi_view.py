"""Accuracy over several views of each video."""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric

from hiera_video.metrics.view_groups import (
    ViewGroup,
    group_scores,
    label_positions,
    predicted_class,
    view_groups,
    view_names,
)


class Outcomes(NamedTuple):
    """The outcome for each of n videos that were seen, in the order of their ids.

    Attributes:
        video_id: int64 ``(n,)``.
        label: int64 ``(n,)``; -1: unknown.
        predicted: int64 ``(n,)``, the class predicted from all views; -1: none, as for a video that
            could not be decoded.
        position: int64 ``(n, groups)``, the rank of the true class, from 0; -1: no label.
        failed: bool ``(n,)``, True if the video could not be decoded.
        seen: bool ``(n, views)``; averages leave out the views that were not seen.
        views: name of each view, its temporal and spatial index, such as ``0x0``.
        groups: the groups of views that are averaged; the last one has all views.
        num_classes: number of classes.
    """

    video_id: np.ndarray
    label: np.ndarray
    predicted: np.ndarray
    position: np.ndarray
    failed: np.ndarray
    seen: np.ndarray
    views: list[str]
    groups: list[ViewGroup]
    num_classes: int

    def accuracy(self, k: int = 1, group: int = -1) -> float:
        """Top-k accuracy in [0, 1].

        Args:
            k: the true class must be among the k most probable.
            group: index of a group of views in `groups`.

        Returns:
            A share of the labelled videos; NaN if there are none.
        """
        right = self.position[self.label >= 0, group] < k
        return float(right.mean()) if len(right) else float("nan")

    def class_accuracy(self) -> tuple[np.ndarray, np.ndarray]:
        """Top-1 accuracy of each class from all views.

        Returns:
            float64 ``(num_classes,)`` in [0, 1], NaN for a class without videos; and the number of
            videos of each class, int64 ``(num_classes,)``.
        """
        known = self.label >= 0
        videos = np.bincount(self.label[known], minlength=self.num_classes)
        right = np.bincount(
            self.label[known], self.position[known, -1] == 0, minlength=self.num_classes
        )
        return np.divide(right, videos, out=np.full(len(videos), np.nan), where=videos > 0), videos

    def mean_class_accuracy(self) -> float:
        """Top-1 accuracy averaged over the classes that have videos; NaN if none has."""
        accuracy, videos = self.class_accuracy()
        return float(accuracy[videos > 0].mean()) if videos.any() else float("nan")

    def values(self) -> dict[str, float]:
        """``top1``, ``mean_class_accuracy`` and, from five classes on, ``top5``; in [0, 1]."""
        values = {"top1": self.accuracy(), "mean_class_accuracy": self.mean_class_accuracy()}
        return values | ({"top5": self.accuracy(5)} if self.num_classes >= 5 else {})

    def confusion(self) -> np.ndarray:
        """Count labelled videos by label and prediction.

        Returns:
            int64 ``(num_classes, num_classes + 1)``; the last column is for no prediction.
        """
        known = self.label >= 0
        predicted = np.where(self.predicted < 0, self.num_classes, self.predicted)[known]
        counts = np.zeros((self.num_classes, self.num_classes + 1), np.int64)
        np.add.at(counts, (self.label[known], predicted), 1)
        return counts


class MultiViewAccuracy(Metric):
    """Top-1, top-5 and mean class accuracy of the probabilities averaged over each video's views.

    All views of a video must come on one process, in any order and in any batches. When the last
    one has come, the video is judged, in float64 and in the order of the views. Only the outcome is
    kept, a few numbers per video, so memory does not grow with views or classes. Processes are
    combined by the maximum of each number, so a video that several processes saw, such as padding,
    counts once.

    Videos that were not seen and videos without a label are left out. A video that lacks views is
    judged by the views that came; see `Outcomes.seen`.

    Args:
        num_videos: videos of the data set; ids are in [0, num_videos).
        num_classes: number of classes.
        views: numbers of temporal and spatial views of a video.
    """

    full_state_update = False
    higher_is_better = True
    label: Tensor
    predicted: Tensor
    position: Tensor
    failed: Tensor
    seen: Tensor
    count: Tensor

    def __init__(self, num_videos: int, num_classes: int, views: tuple[int, int] = (1, 1)) -> None:
        super().__init__()
        self.num_classes, self.num_views = num_classes, views[0] * views[1]
        self.views = view_names(*views)
        self.groups = view_groups(*views)
        states = {
            "label": torch.full((num_videos,), -1),
            "predicted": torch.full((num_videos,), -1),
            "position": torch.full((num_videos, len(self.groups)), -1),
            "failed": torch.zeros(num_videos, dtype=torch.uint8),
            "seen": torch.zeros(num_videos, self.num_views, dtype=torch.uint8),
            "count": torch.zeros(num_videos, dtype=torch.int32),  # views on this process
        }
        for name, value in states.items():
            self.add_state(name, value, dist_reduce_fx="max")
        self._waiting: dict[int, dict[int, Tensor]] = {}  # of incomplete videos: the views so far
        self._label_of: dict[int, int] = {}  # of incomplete videos
        self._whole: set[int] = set()  # videos judged; on the host, as each row looks it up

    def update(self, probabilities: Tensor, label: Tensor, video_id: Tensor, view: Tensor) -> None:
        """Add B views.

        Args:
            probabilities: float ``(B, num_classes)``; a view that came before is ignored.
            label: int64 ``(B,)``; -1: unknown.
            video_id: int64 ``(B,)``.
            view: int64 ``(B,)``: ``temporal index * spatial views + spatial index``.
        """
        rows = probabilities.detach().double().cpu()
        videos = video_id.tolist()
        for row, video, name, place in zip(
            rows, videos, label.tolist(), view.tolist(), strict=True
        ):
            if video not in self._whole:
                self._waiting.setdefault(video, {}).setdefault(place, row)
                self._label_of[video] = name
        whole = [
            video
            for video in dict.fromkeys(videos)
            if len(self._waiting.get(video, ())) == self.num_views
        ]
        if not whole:
            return
        stacks = [[self._waiting[video][v] for v in range(self.num_views)] for video in whole]
        self._judge(whole, torch.stack([torch.stack(views) for views in stacks]), self.groups)
        self._whole.update(whole)
        for video in whole:
            del self._waiting[video], self._label_of[video]

    def count_as_wrong(self, video_id: int, label: int) -> None:
        """Add a video that could not be decoded.

        Args:
            video_id: in [0, num_videos).
            label: of the video; -1: unknown.
        """
        self.label[video_id] = label
        self.failed[video_id] = 1
        if label >= 0:
            self.position[video_id] = self.num_classes
        nothing = self.label[:0]
        self.update(self.position.new_zeros(0, self.num_classes), nothing, nothing, nothing)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Judge incomplete videos by the views that came, before states are exchanged."""
        self._judge_waiting()
        super().sync(*args, **kwargs)

    def compute(self) -> dict[str, Tensor]:
        """`Outcomes.values` as float64 scalars."""
        values = self._outcomes().values()
        return {name: torch.tensor(value, dtype=torch.float64) for name, value in values.items()}

    def outcomes(self) -> Outcomes:
        """The outcomes of the videos of all processes, which must all call this.

        Raises:
            RuntimeError: the views of one video came on several processes.
        """
        with self.sync_context(self.dist_sync_fn):
            return self._outcomes()

    def reset(self) -> None:
        """Forget all videos."""
        super().reset()
        self._waiting.clear()
        self._label_of.clear()
        self._whole.clear()

    def _outcomes(self) -> Outcomes:
        if not self._is_synced:
            self._judge_waiting()
        seen = self.seen.bool()
        split = (seen.sum(1) > self.count).nonzero()
        if len(split):
            raise RuntimeError(
                f"the views of video {int(split[0, 0])} came on several processes; each process "
                "must see all views of its videos"
            )
        known = (seen.any(1) | self.failed.bool()).cpu()

        def column(state: Tensor) -> np.ndarray:
            return state.cpu()[known].numpy()

        return Outcomes(
            video_id=known.nonzero()[:, 0].numpy(),
            label=column(self.label),
            predicted=column(self.predicted),
            position=column(self.position),
            failed=column(self.failed.bool()),
            seen=column(seen),
            views=self.views,
            groups=self.groups,
            num_classes=self.num_classes,
        )

    def _judge_waiting(self) -> None:
        """Judge each incomplete video; each group averages those of its views that came."""
        for video, rows in self._waiting.items():
            views = sorted(rows)
            places = [[views.index(v) for v in group.views if v in rows] for group in self.groups]
            groups = [g._replace(views=tuple(p)) for g, p in zip(self.groups, places, strict=True)]
            self._judge([video], torch.stack([rows[v] for v in views])[None], groups, views)

    def _judge(
        self,
        videos: list[int],
        probabilities: Tensor,
        groups: list[ViewGroup],
        views: list[int] | None = None,
    ) -> None:
        """Set the states of some videos.

        Args:
            videos: ids.
            probabilities: float64 ``(videos, views, classes)``.
            groups: of views, as indices along the second axis.
            views: number of each view along that axis; None: all.
        """
        scores = group_scores(probabilities, groups)
        label = torch.tensor([self._label_of[video] for video in videos])
        position = label_positions(scores, label.clamp(min=0))
        position[label < 0] = -1
        self.label[videos] = label.to(self.label.device)
        self.position[videos] = position.to(self.position.device)
        predicted = predicted_class(scores[:, -1], label, position[:, -1])
        self.predicted[videos] = predicted.to(self.predicted.device)
        views = list(range(self.num_views)) if views is None else views
        self.seen[torch.tensor(videos)[:, None], torch.tensor(views)] = 1
        self.count[videos] = len(views)
