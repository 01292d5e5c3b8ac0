"""Masked pretraining."""

from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torchmetrics import MeanMetric

from hiera_video.augment.basic import MASK_STREAM
from hiera_video.augment.random import uniform
from hiera_video.models.mae import MAEOutput
from hiera_video.models.masks import check_mask, kept_units, num_noise
from hiera_video.tasks.base import Batch, VideoTask


class PretrainingTask(VideoTask):
    """Reconstruct the hidden part of clips (HIERA section 3 and appendix A).

    Args:
        model: factory of a `MaskedAutoencoderHiera`.
        mask_ratio: share of mask units hidden; None: 0.9 for video, 0.6 for images.
        mask: which are hidden, a name in `models.masks.MASKS`: random, tube or block.
        **kwargs: as in `VideoTask`.
    """

    def __init__(
        self, model, *, mask_ratio: float | None = None, mask: str = "random", **kwargs
    ) -> None:
        super().__init__(model, **kwargs)
        if mask_ratio is not None and not 0 < mask_ratio < 1:
            raise ValueError(f"mask_ratio must be in (0, 1), not {mask_ratio}")
        check_mask(mask)
        self.mask_ratio, self.mask = mask_ratio, mask
        self.val_loss = MeanMetric()

    def setup(self, stage: str) -> None:
        """Refuse to predict.

        Raises:
            MisconfigurationException: there is nothing to predict.
        """
        super().setup(stage)
        if stage == "predict":
            raise MisconfigurationException(
                "pretraining predicts no classes; use --config of a classification"
            )

    def forward(self, video: Tensor, seed: Tensor) -> MAEOutput:
        """Hide, encode, reconstruct.

        Args:
            video: normalised float ``(B, 3, T, H, W)``.
            seed: int64 ``(B,)``; which units are hidden is a function of it alone.
        """
        grid, keep = self.model.unit_grid, self.model.num_kept(self.mask_ratio, self.mask)
        noise = uniform(seed, num_noise(self.mask, grid), MASK_STREAM)
        return self.model(video, mask=kept_units(self.mask, noise, grid, keep))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Mean squared error over the hidden patches."""
        loss = self(self.training_video(batch), batch["seed"]).loss
        self.log("train/loss", loss, batch_size=len(batch["seed"]))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """The same on validation videos, with masks that are equal in every epoch."""
        if len(batch["video"]):  # else no video of the batch could be decoded
            out = self(self.normalize(batch["video"]), batch["seed"])
            self.val_loss.update(out.loss, weight=len(batch["seed"]))
        self.log("val/loss", self.val_loss)
