"""Reconstruction pictures during pretraining."""

import logging
from pathlib import Path
from typing import Any, cast

from lightning import Callback, LightningModule, Trainer

from hiera_video.callbacks.pictures import log_picture, showing
from hiera_video.tasks.pretraining import PretrainingTask
from hiera_video.visualize.reconstruction import (
    moving_pictures,
    picture_sheet,
    reconstruction_pictures,
    row_captions,
    to_image,
)

log = logging.getLogger(__name__)


class ReconstructionPictures(Callback):
    """Paint the first clips of each validation, as a PNG file and, moving, for the loggers.

    Each clip has four rows with captions: the clip, what the model saw, its reconstruction, and the
    prediction alone. The file has a column for each frame; TensorBoard, Weights & Biases and MLflow
    get a GIF that plays the clips side by side. Judge a training by the last row: normalised
    targets give the reconstruction the true mean and deviation of each hidden patch, and even
    random weights look good with them. If the target is histograms of gradients, these are drawn as
    stars, those of the clip in a fifth row.

    Args:
        folder: where ``step-0001234.png`` is written.
        num_clips: clips in a picture, at least 1.
        every_n_epochs: epochs from one picture to the next, at least 1.
    """

    def __init__(self, folder: str | Path, num_clips: int = 4, every_n_epochs: int = 1) -> None:
        for name, value in (("num_clips", num_clips), ("every_n_epochs", every_n_epochs)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        self.folder, self.num_clips, self.every_n_epochs = Path(folder), num_clips, every_n_epochs

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Paint the first batch."""
        due = (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if not len(batch["video"]):  # none of it could be decoded
            return
        if batch_idx or trainer.sanity_checking or not trainer.is_global_zero or not due:
            return
        task = cast(PretrainingTask, pl_module)
        video = task.normalize(batch["video"][: self.num_clips])
        with trainer.precision_plugin.forward_context():  # in the types of the training
            out = task(video, batch["seed"][: self.num_clips])
        pictures = reconstruction_pictures(task.model, video, out, task.normalize)
        captions = row_captions(task.model)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.folder / f"step-{trainer.global_step:07d}.png"
            to_image(picture_sheet(pictures, captions)).save(file)
        except OSError as error:  # a full disk does not end a training
            log.warning(f"{self.folder}: no reconstructions are painted: {error.strerror}")
        if showing(trainer.loggers):
            caption = "from top to bottom: " + "; ".join(captions)
            gif = moving_pictures(pictures, captions)
            log_picture(trainer.loggers, "reconstruction", gif, trainer.global_step, caption)
