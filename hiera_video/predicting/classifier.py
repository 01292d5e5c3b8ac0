"""The classes of videos: what `load` gives for a classifier."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.clips.videos import ClipFormat, clips_of_views
from datamodules.video.decoding import VideoFile
from hiera_video.augment.basic import Normalize
from hiera_video.metrics.top_classes import Prediction, mean_of_views, top_classes
from hiera_video.predicting.batches import ClipNetwork, batches
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from hiera_video.results.embedding_files import Embedding


class Predictor:
    """Names the classes of videos, with the same numbers as the command ``predict`` in float32.

    Args:
        model: a classifier: normalised float ``(B, 3, T, H, W)`` to logits ``(B, classes)``.
        class_names: in the order of the logits.
        clip: what the model sees of a video.
        views: numbers of temporal and spatial views of a video, unless `predict` is given others.
        normalize: from uint8 to what the model takes.
        device: None: a GPU if there is one.

    Attributes:
        class_names: a tuple.
        clip: as given.
        views: as given, a tuple.
        device: where the model is.
        model: in evaluation mode.
        encoder: computes features.

    Raises:
        ValueError: ``views`` are not two positive numbers.
    """

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        clip: ClipFormat,
        views: Sequence[int],
        normalize: Normalize | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self._network = ClipNetwork(model, normalize, device)
        self.model, self.device = self._network.network, self._network.device
        self.class_names, self.clip, self.views = tuple(class_names), clip, _checked(views)
        self.encoder = VideoEncoder(self._network, clip, self.views)

    def predict(
        self, video: str | Path, top: int = 5, views: Sequence[int] | None = None
    ) -> list[Prediction]:
        """The most probable classes of a video, in falling order.

        Args:
            video: a file.
            top: at most so many classes.
            views: numbers of (temporal, spatial) views, whose probabilities are averaged; None: as
                in the tests of its training.

        Returns:
            ``[Prediction(label, probability), ...]``.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ValueError: ``top`` or ``views`` are not positive.
        """
        if top < 1:
            raise ValueError(f"top must be at least 1, not {top}")
        return top_classes(self._of_views(video, views), self.class_names, top)

    def probabilities(self, video: str | Path, views: Sequence[int] | None = None) -> np.ndarray:
        """Probabilities of all classes, averaged over views.

        Args:
            video: a file.
            views: as in `predict`.

        Returns:
            float64 ``(classes,)`` in the order of `class_names`; the sum is 1.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ValueError: ``views`` are not positive.
        """
        return mean_of_views(self._of_views(video, views)).numpy()

    def embed(self, video: str | Path, **options: Any) -> Embedding:
        """Features of a video: what the classifier's head sees.

        Args:
            video: a file.
            **options: fields of `EmbeddingOptions`, such as ``stride=1.0``; without any, one
                vector, the mean over the views of its tests.

        Returns:
            ``start`` and ``end`` ``(N,)``, seconds, and ``features`` float32 ``(N, C)``; see
            `VideoEncoder.embed`.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ValueError: the options contradict each other or the model.
        """
        return self.encoder.embed(video, EmbeddingOptions(**options))

    def _of_views(self, video: str | Path, views: Sequence[int] | None) -> Tensor:
        """Probabilities of each view, float32 ``(views, classes)``."""
        temporal, spatial = self.views if views is None else _checked(views)
        with VideoFile(video) as file:
            clips = clips_of_views(file, self.clip, temporal, spatial)  # (views, T, H, W, 3)
        logits = [self._network.logits(batch) for _, batch in batches(clips)]
        return torch.cat(logits).softmax(dim=1)


def _checked(views: Sequence[int]) -> tuple[int, int]:
    if isinstance(views, int | float) or len(views) != 2 or min(views) < 1:
        raise ValueError(f"views must be (temporal, spatial), each at least 1, not {views}")
    temporal, spatial = views
    return temporal, spatial
