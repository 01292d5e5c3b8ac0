"""What was predicted for each video, and the accuracies that follow from it."""

from typing import NamedTuple

import numpy as np

from hiera_video.metrics.view_groups import ViewGroup


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
