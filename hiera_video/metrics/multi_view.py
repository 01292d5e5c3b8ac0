"""Accuracy of videos that are seen in several views."""

import torch
from torch import Tensor
from torchmetrics import Metric


class MultiViewAccuracy(Metric):
    """Top-1 and top-5 of the probabilities averaged over each video's views.

    The state is one row a video, so the result is the same for any split of videos over ranks and
    batches, and padding cannot count anything twice. Videos that were not seen are left out, and
    those without a label.

    Args:
        num_videos: videos of the data set; ids are in [0, num_videos).
        num_classes: classes.
    """

    full_state_update = False
    higher_is_better = True
    total: Tensor
    views: Tensor
    label: Tensor

    def __init__(self, num_videos: int, num_classes: int) -> None:
        super().__init__()
        zeros = torch.zeros(num_videos, num_classes, dtype=torch.float64)
        self.add_state("total", zeros, dist_reduce_fx="sum")
        self.add_state("views", torch.zeros(num_videos, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("label", torch.full((num_videos,), -1), dist_reduce_fx="max")

    def update(self, probabilities: Tensor, label: Tensor, video_id: Tensor) -> None:
        """Add views.

        Args:
            probabilities: float ``(B, num_classes)``.
            label: int64 ``(B,)``; -1 = unknown.
            video_id: int64 ``(B,)``.
        """
        self.total.index_add_(0, video_id, probabilities.to(self.total.dtype))
        self.views.index_add_(0, video_id, torch.ones_like(video_id))
        self.label[video_id] = label

    def count_as_wrong(self, video_id: int, label: int) -> None:
        """Add a video that has no views because it could not be decoded."""
        nothing = torch.full_like(self.total[:1], torch.nan)
        self.update(nothing, self.label.new_tensor([label]), self.label.new_tensor([video_id]))

    def compute(self) -> dict[str, Tensor]:
        """``top1`` and, from five classes on, ``top5``, as shares in [0, 1]."""
        counts = (self.views > 0) & (self.label >= 0)
        scores, label = self.total[counts], self.label[counts]
        # Classes at least as probable as the true one, itself among them: a tie counts against it,
        # so that no class is favoured by its id. NaN compares false, which leaves 0.
        rank = (scores >= scores.gather(1, label[:, None])).sum(1)
        top = {f"top{k}": ((rank <= k) & (rank > 0)).double().mean() for k in (1, 5)}
        return top if scores.shape[1] >= 5 else {"top1": top["top1"]}
