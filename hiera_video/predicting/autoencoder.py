"""How a masked autoencoder reconstructs a video: what `load` gives for a pretraining run."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from datamodules.clips.videos import ClipFormat
from hiera_video.augment.basic import Normalize
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.masks import check_mask, kept_units, num_noise
from hiera_video.predicting.batches import ClipNetwork, clip_at
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from hiera_video.results.embedding_files import Embedding
from hiera_video.visualize.reconstruction import reconstruction_pictures


class Reconstruction(NamedTuple):
    """A clip, masked and reconstructed. It has only the frames that the model predicts, T' of T.

    Attributes:
        loss: mean squared error of the hidden patches.
        original: the clip, uint8 ``(T', H, W, 3)``.
        masked: the same with hidden pixels in grey.
        reconstruction: the same with hidden pixels as predicted. Where the target is normalised, as
            by default, hidden patches have their true mean and deviation, which the model does not
            know: with random weights the picture resembles the clip, too.
        prediction: what the model predicts and nothing else; visible pixels in grey.
    """

    loss: float
    original: np.ndarray
    masked: np.ndarray
    reconstruction: np.ndarray
    prediction: np.ndarray

    @property
    def rows(self) -> np.ndarray:
        """The four pictures, uint8 ``(4, T', H, W, 3)``, as `picture_sheet` takes them."""
        return np.stack([self.original, self.masked, self.reconstruction, self.prediction])


class Reconstructor:
    """Hides parts of videos and reconstructs them.

    Args:
        model: a masked autoencoder of videos.
        clip: what the model sees of a video.
        mask_ratio: share of mask units that is hidden, in (0, 1), unless `reconstruct` is given
            another; None: 0.9.
        mask: which units are hidden, a name in `models.masks.MASKS`.
        normalize: from uint8 to what the model takes.
        device: None: a GPU if there is one.

    Attributes:
        clip: as given.
        mask: as given.
        mask_ratio: as given.
        device: where the model is.
        model: in evaluation mode.
        encoder: computes features.

    Raises:
        ValueError: no such mask.
    """

    def __init__(
        self,
        model: MaskedAutoencoderHiera,
        clip: ClipFormat,
        mask_ratio: float | None = None,
        mask: str = "random",
        normalize: Normalize | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        check_mask(mask)
        self._network = ClipNetwork(model, normalize, device)
        self.model, self.device = model, self._network.device
        self.clip, self.mask_ratio, self.mask = clip, mask_ratio, mask
        self.encoder = VideoEncoder(self._network, clip)

    def reconstruct(
        self, video: str | Path | np.ndarray, mask_ratio: float | None = None, seed: int = 0
    ) -> Reconstruction:
        """Hide parts of a clip and paint what the model predicts there.

        Args:
            video: a file, from which the clip in the middle of time and picture is taken; or a
                clip, uint8 ``(T, H, W, 3)`` of the size of `clip`.
            mask_ratio: share of mask units that is hidden, in (0, 1); None: that of the training.
            seed: seed of the choice of units, which is the same on all devices.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ValueError: the clip has another shape or type, the share hides nothing or everything,
                or the model predicts no pictures (``target="hog"``).
        """
        clip = self._clip_of(video)
        pixels = torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3)  # (1, 3, T, H, W)
        normalized = self._network.normalized(pixels)
        out = self._network.run(normalized, mask=self._kept_units(mask_ratio, seed))
        rows = reconstruction_pictures(self.model, normalized, out, self._network.normalize)
        return Reconstruction(float(out.loss), *rows[0].cpu().numpy())

    def embed(self, video: str | Path, **options: Any) -> Embedding:
        """Features of a video, of which nothing is masked.

        Args:
            video: a file.
            **options: fields of `EmbeddingOptions`, such as ``stride=1.0``; without any, one
                vector, that of the clip in the middle of time and picture.

        Returns:
            As `Predictor.embed`.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ValueError: the options contradict each other or the model.
        """
        return self.encoder.embed(video, EmbeddingOptions(**options))

    def _clip_of(self, video: str | Path | np.ndarray) -> np.ndarray:
        """The clip to reconstruct, uint8 ``(T, H, W, 3)``."""
        if isinstance(video, np.ndarray):
            if video.shape != self.clip.shape or video.dtype != np.uint8:
                raise ValueError(
                    f"expected a clip uint8 {self.clip.shape}, not {video.dtype} {video.shape}"
                )
            return np.ascontiguousarray(video)
        return clip_at(video, self.clip)[0]

    def _kept_units(self, mask_ratio: float | None, seed: int) -> Tensor:
        """Units that the model sees, int64 ``(1, K)``."""
        grid, ratio = self.model.unit_grid, self.mask_ratio if mask_ratio is None else mask_ratio
        generator = torch.Generator().manual_seed(seed)
        noise = torch.rand(1, num_noise(self.mask, grid), generator=generator)
        return kept_units(self.mask, noise, grid, self.model.num_kept(ratio, self.mask))
