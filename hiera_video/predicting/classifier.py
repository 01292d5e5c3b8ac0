"""Use a trained classifier: ``load("run_or_file").predict("video.mp4")``."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from datamodules.clips.videos import ClipFormat, clips_of_views
from datamodules.video.decoding import VideoFile
from hiera_video.augment.basic import Normalize
from hiera_video.errors import CheckpointError
from hiera_video.metrics.top_classes import Prediction, mean_of_views, top_classes
from hiera_video.weights.portable import build
from hiera_video.weights.trained import read_trained

CLIPS_AT_ONCE = 8  # that the model sees together; bounds memory, not the views


def load(source: str | Path, device: str | torch.device | None = None) -> "Predictor":
    """A trained classifier, ready for videos.

    Args:
        source: a run folder (its best checkpoint, else its last), a checkpoint of a run, a folder
            that ``export --format safetensors`` wrote, or a published name such as
            ``hiera_base_16x224``, which is downloaded once (CC-BY-NC 4.0).
        device: None: a GPU if there is one.

    Raises:
        CheckpointError: a ValueError: it is none of these, is damaged, or is no classifier of
            videos.
    """
    trained = read_trained(source)
    description = trained.description
    if description.kind != "classifier":
        raise CheckpointError(
            f"{source}: a masked autoencoder names no classes; fine-tune from it, or use create_mae"
        )
    if description.clip is None:
        raise CheckpointError(f"{source}: a model of images, not of videos; use create_model")
    clip = dict(description.clip)
    views, (height, width) = clip.pop("test_views"), clip.pop("size")
    model = build(description, trained.weights)
    if tuple(model.input_size) != (seen := (clip["num_frames"], height, width)):
        raise CheckpointError(
            f"{source}: clips of {seen} for a model that takes {model.input_size}"
        )
    names = description.class_names
    return Predictor(
        model,
        # Nobody published the names with the weights.
        names or [str(i) for i in range(model.head.projection.out_features)],
        ClipFormat(**clip, height=height, width=width),
        views,
        Normalize(description.mean, description.std),  # pyright: ignore[reportArgumentType]
        device,
    )


class Predictor:
    """Names the classes of videos. Numbers are those of the command ``predict`` in float32.

    Args:
        model: a classifier: normalised float ``(B, 3, T, H, W)`` to logits ``(B, classes)``.
        class_names: of the logits.
        clip: what the model sees of a video.
        views: temporal and spatial views of a video, unless `predict` is told others.
        normalize: from uint8 to what the model takes.
        device: None: a GPU if there is one.

    Attributes:
        model: in evaluation mode, on `device`.
        class_names: a tuple.
    """

    def __init__(
        self,
        model: Any,
        class_names: Sequence[str],
        clip: ClipFormat,
        views: Sequence[int],
        normalize: Normalize | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        default = "cuda" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device or default)
        self.model = model.to(self.device).eval()
        self.normalize = (normalize or Normalize()).to(self.device)
        self.class_names, self.clip, self.views = tuple(class_names), clip, _checked(views)

    def predict(
        self, video: str | Path, top: int = 5, views: Sequence[int] | None = None
    ) -> list[Prediction]:
        """The most probable classes of a video, the first the most probable.

        Args:
            video: a file.
            top: classes at most.
            views: (temporal, spatial), whose probabilities are averaged; None: those of the tests
                of its training.

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
        """Of all classes, in the order of `class_names`: float64 ``(classes,)``, of sum 1.

        Arguments and errors as of `predict`.
        """
        return mean_of_views(self._of_views(video, views)).numpy()

    @torch.inference_mode()
    def _of_views(self, video: str | Path, views: Sequence[int] | None) -> Tensor:
        """Probabilities of each view, float32 ``(views, classes)``."""
        temporal, spatial = self.views if views is None else _checked(views)
        with VideoFile(video) as file:
            clips = clips_of_views(file, self.clip, temporal, spatial)
        video_ = torch.from_numpy(clips).permute(0, 4, 1, 2, 3)  # (views, 3, T, H, W)
        parts = video_.split(CLIPS_AT_ONCE)
        logits = [self.model(self.normalize(part.to(self.device))) for part in parts]
        return torch.cat(logits).float().softmax(dim=1)


def _checked(views: Sequence[int]) -> tuple[int, int]:
    if isinstance(views, int | float) or len(views) != 2 or min(views) < 1:
        raise ValueError(f"views must be (temporal, spatial), each at least 1, not {views}")
    temporal, spatial = views
    return temporal, spatial
