"""The classes of videos: what `load` gives for a classifier."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.clips.format import ClipFormat
from datamodules.clips.videos import clips_of_views
from datamodules.video.decoding import VideoFile
from datamodules.video.opening import open_media
from hiera_video.augment.basic import Normalize
from hiera_video.metrics.top_classes import Prediction, mean_of_views, top_classes
from hiera_video.predicting.along import ScoredWindow, scored_windows
from hiera_video.predicting.batches import ClipNetwork, batches, clip_at
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from hiera_video.predicting.saliency import (
    Saliency,
    Show,
    check_method,
    class_index,
    saliency_map,
    silent,
)
from hiera_video.predicting.views import VideoViews, views_of_video
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
        precision: as in `ClipNetwork`.

    Attributes:
        class_names: a tuple.
        clip: as given.
        views: as given, a tuple.
        device: where the model is.
        model: in evaluation mode.
        encoder: computes features.

    Raises:
        ValueError: ``views`` are not two positive numbers, or there is no such precision.
    """

    def __init__(
        self,
        model: nn.Module,
        class_names: Sequence[str],
        clip: ClipFormat,
        views: Sequence[int],
        normalize: Normalize | None = None,
        device: str | torch.device | None = None,
        precision: str = "32-true",
    ) -> None:
        self._network = ClipNetwork(model, normalize, device, precision)
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

    def probabilities_of_clip(self, clip: np.ndarray) -> np.ndarray:
        """Probabilities of all classes for frames that are in memory.

        Args:
            clip: uint8 ``(T, H, W, 3)``, of the size that the model takes.

        Returns:
            float64 ``(classes,)`` in the order of `class_names`; the sum is 1.
        """
        ((_, batch),) = batches(clip[None])
        return mean_of_views(self._network.logits(batch).softmax(dim=1)).numpy()

    def view_by_view(self, video: str | Path, views: Sequence[int] | None = None) -> VideoViews:
        """What the model says about each view of a video, in place of their average alone.

        Args:
            video: a file.
            views: as in `predict`.

        Returns:
            Where and when each view is, its clip and its probabilities, and pictures of them.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ValueError: ``views`` are not positive.
        """
        wanted = self.views if views is None else _checked(views)
        with open_media(video) as file:
            return views_of_video(self._network, file, self.clip, self.class_names, wanted)

    def along(
        self,
        video: str | Path | VideoFile,
        stride: float = 1.0,
        window: float | None = None,
        spatial: int = 1,
    ) -> Iterator[ScoredWindow]:
        """The classes along a video, part by part; memory does not grow with its length.

        The video is cut into parts of ``stride`` seconds, and the model sees a clip around the
        middle of each; see `sliding_windows`.

        Args:
            video: a file; if it is open already, it stays open.
            stride: seconds from one part to the next.
            window: seconds of a clip, over which its frames are spread evenly; None: as in
                training. A model that saw frames of whole videos needs it.
            spatial: crops of each clip, whose probabilities are averaged.

        Yields:
            ``ScoredWindow(start, end, probabilities)``, in the order of time.

        Raises:
            VideoDecodeError: the file cannot be read as a video, or it is damaged; parts before the
                damage have been yielded.
            ValueError: ``stride``, ``window`` or ``spatial`` is not positive, or a window is
                missing.
        """
        if spatial < 1:
            raise ValueError(f"spatial must be at least 1, not {spatial}")
        with nullcontext(video) if isinstance(video, VideoFile) else VideoFile(video) as file:
            yield from scored_windows(self._network, file, self.clip, stride, window, spatial)

    def saliency(
        self,
        video: str | Path,
        label: str | None = None,
        method: str = "grad_cam",
        second: float | None = None,
        stage: int | None = None,
        cuboid: Sequence[int] | None = None,
        show: Show = silent,
    ) -> Saliency:
        """Where in one clip of a video the model sees a class.

        Args:
            video: a file.
            label: the class; None: the most probable one of the clip.
            method: ``grad_cam``, one pass forwards and half a pass backwards; or ``occlusion``, a
                pass for each of some hundred places.
            second: the middle of the clip, seconds; None: the middle of the video.
            stage: for ``grad_cam``, the stage whose map is taken, 1 for the first; None: the last.
            cuboid: for ``occlusion``, frames, height and width of the grey cuboid that hides a
                place; None: half of the frames, a quarter of height and width.
            show: for ``occlusion``, called with the number of passes that are done, and of all.

        Returns:
            The clip and its map. `predict` averages several views, so its probability differs.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ChoiceError: a ValueError: no such class, method, second, stage or cuboid.
        """
        check_method(method, stage, cuboid)
        wanted = None if label is None else class_index(self.class_names, label)
        clip, times, last = clip_at(video, self.clip, second)
        softmax = partial(torch.softmax, dim=1)
        pixels = torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3)  # (1, 3, T, H, W)
        scores = softmax(self._network.logits(pixels))[0]  # (classes,)
        index = int(scores.argmax()) if wanted is None else wanted
        heat, peak = saliency_map(
            self._network, clip, index, softmax, lambda copies: {}, method, stage, cuboid, show
        )
        label, score = self.class_names[index], float(scores[index])
        return Saliency(clip, heat, peak, label, score, method, times, None, last)

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
        with open_media(video) as file:
            clips = clips_of_views(file, self.clip, temporal, spatial)  # (views, T, H, W, 3)
        logits = [self._network.logits(batch) for _, batch in batches(clips)]
        return torch.cat(logits).softmax(dim=1)


def _checked(views: Sequence[int]) -> tuple[int, int]:
    if isinstance(views, int | float) or len(views) != 2 or min(views) < 1:
        raise ValueError(f"views must be (temporal, spatial), each at least 1, not {views}")
    temporal, spatial = views
    return temporal, spatial
