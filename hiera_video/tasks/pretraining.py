"""Masked pretraining."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchmetrics import MeanMetric

from hiera_video.augment.basic import DECODER_MASK_STREAM, MASK_STREAM
from hiera_video.augment.random import uniform
from hiera_video.models.complexity import training_flops
from hiera_video.models.mae import MAEOutput
from hiera_video.models.masks import check_mask, kept_units, num_noise, running_cell
from hiera_video.models.network_input import network_input
from hiera_video.tasks.base import VideoTask
from hiera_video.tasks.evaluation import Batch


class PretrainingTask(VideoTask):
    """Reconstruct the hidden part of clips (HIERA section 3 and appendix A).

    ``validate`` and ``test`` log the mean reconstruction loss.

    Args:
        model: returns a `MaskedAutoencoderHiera`.
        mask_ratio: share of mask units that is hidden, in (0, 1); None: 0.9 for video, 0.6 for
            images.
        mask: which units are hidden, a name in `models.masks.MASKS`: random, tube or block.
        decoder_mask_ratio: share of the hidden patches, in [0, 1), that training does not decode
            (`models.masks.running_cell`). Evaluation predicts all of them.
        **kwargs: as in `VideoTask`.

    Raises:
        ValueError: a share is out of its range, or there is no such mask.
    """

    def __init__(
        self,
        model,
        *,
        mask_ratio: float | None = None,
        mask: str = "random",
        decoder_mask_ratio: float = 0.0,
        **kwargs,
    ) -> None:
        super().__init__(model, **kwargs)
        if mask_ratio is not None and not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), not {mask_ratio}")
        if not 0 <= decoder_mask_ratio < 1:
            raise ValueError(f"decoder_mask_ratio must be in [0, 1), not {decoder_mask_ratio}")
        check_mask(mask)
        self.mask_ratio, self.mask = mask_ratio, mask
        self.decoder_mask_ratio = decoder_mask_ratio

    def setup(self, stage: str) -> None:
        """Set up as any task, but refuse to predict.

        Raises:
            MisconfigurationException: ``predict`` was called; the network has no classes.
        """
        if stage == "predict":
            raise MisconfigurationException(
                "pretraining predicts no classes; fine-tune from it and predict with that run"
            )
        super().setup(stage)

    def evaluation_settings(self) -> dict[str, Any]:
        """The masks."""
        return {"mask_ratio": self.mask_ratio, "mask": self.mask}

    def forward(self, video: Tensor, seed: Tensor) -> MAEOutput:
        """Hide, encode and reconstruct clips.

        Args:
            video: normalised float ``(B, 3, T, H, W)``.
            seed: int64 ``(B,)``; it alone decides what is hidden, and what of it is decoded.
        """
        return self._reconstruct(self.model, video, seed)

    def training_flops(self, shape: Sequence[int]) -> int:
        """Operations for one clip, forward and backward, with as much hidden as in training."""

        def loss(network: Any, clip: Tensor) -> Tensor:
            return self._reconstruct(network, clip, torch.zeros(1, dtype=torch.int64)).loss

        return training_flops(self.network, loss, shape)

    def _reconstruct(self, model: Any, video: Tensor, seed: Tensor) -> MAEOutput:
        grid, keep = model.unit_grid, model.num_kept(self.mask_ratio, self.mask)
        noise = uniform(seed, num_noise(self.mask, grid), MASK_STREAM)
        kept = kept_units(self.mask, noise, grid, keep)
        decodes_part = self.training and self.decoder_mask_ratio
        decoded = self._decoded(model, kept, seed) if decodes_part else None
        return model(network_input(model, video), mask=kept, decoded=decoded)

    def _decoded(self, model: Any, kept: Tensor, seed: Tensor) -> Tensor:
        """Indices of the hidden patches that are decoded, ``(B, M)``; M is at least 1."""
        patches = model.num_predictions
        num_hidden = patches - kept.shape[1] * (patches // model.num_units)
        count = max(1, round(num_hidden * (1 - self.decoder_mask_ratio)))
        noise = uniform(seed, patches + 1, DECODER_MASK_STREAM)
        hidden = model.hidden_patches(model.unit_mask(kept))
        return running_cell(hidden, count, noise, model.prediction_grid)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean squared error over the hidden patches."""
        loss = self(self.training_video(batch), batch["seed"]).loss
        self.log_mean("train/loss", loss)
        return loss

    def new_metric(self, split: str) -> MeanMetric:
        """The mean loss over the videos of a split."""
        # A loss that is not a number stays one. With "disable", torchmetrics ignores the weights.
        return MeanMetric(nan_strategy=math.nan)

    def evaluate(self, batch: Batch, split: str) -> None:
        """Add the loss of a batch, with masks that are the same in every epoch."""
        if len(batch["video"]):  # else no video of the batch could be decoded
            out = self(self.normalize(batch["video"]), batch["seed"])
            # In float32 also under bf16-true, which Lightning applies to metrics, too.
            metric = self.metric(split).set_dtype(torch.float32)
            metric.update(out.loss.float(), weight=len(batch["seed"]))

    def summarize(self, split: str) -> tuple[dict[str, Tensor], None]:
        """The mean loss, a scalar."""
        return {"loss": self.metric(split).compute()}, None
