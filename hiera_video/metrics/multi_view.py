"""Accuracy over several views of each video."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from hiera_video.metrics.outcomes import Outcomes
from hiera_video.metrics.video_judge import VideoJudge


class MultiViewAccuracy(VideoJudge, Metric):
    """Top-1, top-5 and mean class accuracy of the probabilities averaged over each video's views.

    All views of a video must come on one process, where `VideoJudge` judges it. Processes are
    combined by the maximum of each number, so a video that several processes saw, such as padding,
    counts once. Videos without a label are left out.

    Args:
        num_videos: videos of the data set; ids are in [0, num_videos).
        num_classes: number of classes.
        views: numbers of temporal and spatial views of a video.
    """

    full_state_update = False
    higher_is_better = True

    def begin_with(self, name: str, state: Tensor) -> None:
        """Have torchmetrics keep the outcomes, and exchange them between processes."""
        self.add_state(name, state, dist_reduce_fx="max")

    def count_as_wrong(self, video_id: int, label: int) -> None:
        """Add a video that could not be decoded; see `VideoJudge.count_as_wrong`."""
        super().count_as_wrong(video_id, label)
        nothing = self.label[:0]  # without a call of `update`, torchmetrics warns
        self.update(self.position.new_zeros(0, self.num_classes), nothing, nothing, nothing)

    def sync(self, *args: Any, **kwargs: Any) -> None:
        """Judge incomplete videos by the views that came, before states are exchanged."""
        self.judge_waiting()
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
        self.forget()

    def _outcomes(self) -> Outcomes:
        if not self._is_synced:
            self.judge_waiting()
        split = (self.seen.bool().sum(1) > self.count).nonzero()
        if len(split):
            raise RuntimeError(
                f"the views of video {int(split[0, 0])} came on several processes; each process "
                "must see all views of its videos"
            )
        return self.judged()
