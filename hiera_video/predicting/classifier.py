"""The classes of videos: what `load` gives for a classifier."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from datamodules.clips.videos import ClipFormat, clips_of_views
from datamodules.video.decoding import VideoFile
from hiera_video.augment.basic import Normalize
from hiera_video.metrics.top_classes import Prediction, mean_of_views, top_classes
from hiera_video.predicting.batches import ClipNetwork, batches, clip_at
from hiera_video.predicting.saliency import (
    Saliency,
    Show,
    check_method,
    class_index,
    saliency_map,
    silent,
)


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
        clip, times = clip_at(video, self.clip, second)
        softmax = partial(torch.softmax, dim=1)
        pixels = torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3)  # (1, 3, T, H, W)
        scores = softmax(self._network.logits(pixels))[0]  # (classes,)
        index = int(scores.argmax()) if wanted is None else wanted
        heat, peak = saliency_map(
            self._network, clip, index, softmax, lambda copies: {}, method, stage, cuboid, show
        )
        return Saliency(
            clip, heat, peak, self.class_names[index], float(scores[index]), method, times
        )

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
