"""Judging videos by the mean of their views' probabilities, each when its last view has come."""

import numpy as np
import torch
from torch import Tensor

from hiera_video.metrics.outcomes import Outcomes
from hiera_video.metrics.view_groups import (
    ViewGroup,
    group_scores,
    label_positions,
    predicted_class,
    view_groups,
    view_names,
)


class VideoJudge:
    """Judges videos by the probabilities averaged over the views of each.

    Views may come in any order and in any batches. When the last one of a video has come, the video
    is judged, in float64 and in the order of the views. Only the outcome is kept, a few numbers per
    video, so memory does not grow with views or classes.

    Videos that were not seen are left out. A video that lacks views is judged by the views that
    came; see `Outcomes.seen`.

    Args:
        num_videos: videos of the data set; ids are in [0, num_videos).
        num_classes: number of classes.
        views: numbers of temporal and spatial views of a video.
    """

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
            self.begin_with(name, value)
        self._waiting: dict[int, dict[int, Tensor]] = {}  # of incomplete videos: the views so far
        self._label_of: dict[int, int] = {}  # of incomplete videos
        self._whole: set[int] = set()  # videos judged; on the host, as each row looks it up

    def begin_with(self, name: str, state: Tensor) -> None:
        """Set one of the tensors that hold the outcomes, with a row for each video."""
        setattr(self, name, state)

    def update(self, probabilities: Tensor, label: Tensor, video_id: Tensor, view: Tensor) -> None:
        """Add B views.

        Args:
            probabilities: float ``(B, num_classes)``; a view that came before is ignored.
            label: int64 ``(B,)``; -1: unknown.
            video_id: int64 ``(B,)``.
            view: int64 ``(B,)``: ``temporal index * spatial views + spatial index``.
        """
        rows = probabilities.detach().cpu().double()
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

    def outcomes(self) -> Outcomes:
        """The outcomes of all videos that were seen or could not be decoded."""
        self.judge_waiting()
        return self.judged()

    def judged(self) -> Outcomes:
        """The outcomes of the videos that have been judged."""
        seen = self.seen.bool()
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

    def forget(self) -> None:
        """Forget the views of incomplete videos, and which videos are complete."""
        self._waiting.clear()
        self._label_of.clear()
        self._whole.clear()

    def judge_waiting(self) -> None:
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
