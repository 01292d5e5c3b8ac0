"""How a masked autoencoder reconstructs a video: what `load` gives for a pretraining run."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from datamodules.clips.format import ClipFormat
from hiera_video.augment.basic import Normalize
from hiera_video.models.mae import MaskedAutoencoderHiera
from hiera_video.models.masks import check_mask, drawn_units, kept_units, num_noise
from hiera_video.predicting.batches import CLIPS_AT_ONCE, ClipNetwork, clip_at
from hiera_video.predicting.embedding import EmbeddingOptions, VideoEncoder
from hiera_video.results.embedding_files import Embedding
from hiera_video.visualize.heat import enlarged, heat_over
from hiera_video.visualize.notebook import Player
from hiera_video.visualize.reconstruction import (
    patch_errors,
    picture_sheet,
    reconstruction_pictures,
    row_captions,
    to_image,
)


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
        error: the loss of each patch, float32 ``(T', patches high, patches wide)``, NaN where it
            was visible; the mean of the others is `loss`.
        captions: what each of `rows` shows.
        histograms: if the target is histograms of gradients, those of the clip as a picture, uint8
            ``(T', H, W, 3)``; those of `reconstruction` and `prediction` are drawn likewise. None
            if the target is pixels.
    """

    loss: float
    original: np.ndarray
    masked: np.ndarray
    reconstruction: np.ndarray
    prediction: np.ndarray
    error: np.ndarray
    captions: Sequence[str]
    histograms: np.ndarray | None = None

    @property
    def rows(self) -> np.ndarray:
        """The four pictures, uint8 ``(4, T', H, W, 3)``, as `picture_sheet` takes them.

        They are five with the histograms, which are in the middle.
        """
        target = [] if self.histograms is None else [self.histograms]
        pictures = [self.original, self.masked, *target, self.reconstruction, self.prediction]
        return np.stack(pictures)

    def heat(self, most: float | None = None) -> np.ndarray:
        """The error as heat over the grey clip; visible patches stay grey.

        Args:
            most: the error that has the brightest colour; None: the largest one of the clip.

        Returns:
            uint8 ``(T', H, W, 3)``.
        """
        most = float(np.nanmax(self.error)) if most is None else most
        share = (np.nan_to_num(self.error) / max(most, 1e-12)).clip(0, 1)
        height, width = self.original.shape[1:3]
        rows, columns = height // share.shape[1], width // share.shape[2]
        return heat_over(self.original, share.repeat(rows, axis=1).repeat(columns, axis=2))

    def sheet(self, side: int = 128) -> Image.Image:
        """All pictures as rows, the error as the last, and frames as columns, with captions.

        Args:
            side: pixels; smaller frames are enlarged until their short side has at least so many.
        """
        rows = np.stack([enlarged(clip, side) for clip in self._with_heat()])
        return to_image(picture_sheet(torch.from_numpy(rows[None]), self._heat_captions()))

    def player(self, milliseconds: int = 300, side: int = 160) -> Player:
        """The same side by side, to play in a notebook; arguments as in `Player`."""
        return Player(self._with_heat(), self._heat_captions(), milliseconds, side)

    def _with_heat(self) -> np.ndarray:
        return np.concatenate([self.rows, self.heat()[None]])

    def _heat_captions(self) -> list[str]:
        return [*self.captions, f"error, up to {np.nanmax(self.error):.2f}"]


class Reconstructor:
    """Hides parts of videos and reconstructs them.

    Args:
        model: a masked autoencoder of videos.
        clip: what the model sees of a video.
        mask_ratio: share of mask units that is hidden, in (0, 1), unless `reconstruct` is given
            another; None: 0.9 for videos, 0.6 for pictures.
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
        self,
        video: str | Path | np.ndarray,
        mask_ratio: float | None = None,
        seed: int = 0,
        mask: str | np.ndarray | None = None,
    ) -> Reconstruction:
        """Hide parts of a clip and paint what the model predicts there.

        Args:
            video: a file, from which the clip in the middle of time and picture is taken; or a
                clip, uint8 ``(T, H, W, 3)`` of the size of `clip`.
            mask_ratio: share of mask units that is hidden, in (0, 1); None: that of the training.
            seed: seed of the choice of units, which is the same on all devices.
            mask: which units are hidden: a name in `models.masks.MASKS`; or drawn by hand, bool
                ``model.unit_grid``, True where a unit is hidden, or ``(H, W)`` of it for the same
                places at all times. None: as in training.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ValueError: the clip or the mask has another shape or type, there is no such mask, it
                hides nothing or everything, or a mask drawn by hand has a ratio.
        """
        normalized = self._normalized(self._clip_of(video))
        out = self._network.run(normalized, mask=self._kept_units(mask_ratio, [seed], mask))
        pictures = reconstruction_pictures(self.model, normalized, out, self._network.normalize)
        original, masked, *histograms, painted, predicted = pictures[0].cpu().numpy()
        return Reconstruction(
            float(out.loss),
            original,
            masked,
            painted,
            predicted,
            patch_errors(self.model, out)[0].cpu().numpy(),
            row_captions(self.model),
            *histograms,
        )

    def losses(
        self,
        video: str | Path | np.ndarray,
        mask_ratios: Sequence[float],
        mask: str | None = None,
        seeds: int = 8,
    ) -> np.ndarray:
        """The loss for several shares of hidden units, each with several choices of them.

        Args:
            video: as in `reconstruct`.
            mask_ratios: R shares of mask units that are hidden, in (0, 1).
            mask: a name in `models.masks.MASKS`; None: as in training.
            seeds: the seeds are 0, 1, ..., as in `reconstruct`.

        Returns:
            float32 ``(R, seeds)``, mean squared errors of the hidden patches.

        Raises:
            VideoDecodeError: the file cannot be read as a video.
            ValueError: as in `reconstruct`.
        """
        normalized = self._normalized(self._clip_of(video))
        rows = []
        for ratio in mask_ratios:
            kept = self._kept_units(ratio, range(seeds), mask)  # (seeds, K)
            parts = [
                self._network.run(normalized.expand(len(part), -1, -1, -1, -1), mask=part)
                for part in kept.split(CLIPS_AT_ONCE)
            ]
            errors = [(out.prediction.float() - out.target).square() for out in parts]
            rows.append(torch.cat([error.mean((1, 2)) for error in errors]).cpu().numpy())
        return np.stack(rows)

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

    def _normalized(self, clip: np.ndarray) -> Tensor:
        """What the model takes, ``(1, 3, T, H, W)``."""
        return self._network.normalized(torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3))

    def _kept_units(
        self, mask_ratio: float | None, seeds: Sequence[int], mask: str | np.ndarray | None
    ) -> Tensor:
        """Units that the model sees, int64 ``(seeds, K)``."""
        grid = self.model.unit_grid
        if isinstance(mask, np.ndarray):
            if mask_ratio is not None:
                raise ValueError("a mask drawn by hand says what is hidden; leave out mask_ratio")
            return drawn_units(torch.from_numpy(mask), grid).expand(len(seeds), -1)
        name = self.mask if mask is None else mask
        ratio = self.mask_ratio if mask_ratio is None else mask_ratio
        keep = self.model.num_kept(ratio, name)
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        noise = [torch.rand(1, num_noise(name, grid), generator=g) for g in generators]
        return kept_units(name, torch.cat(noise), grid, keep)
