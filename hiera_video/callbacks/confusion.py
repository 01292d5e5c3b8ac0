"""The confusion matrix of a test, as a PNG file and in TensorBoard."""

from pathlib import Path

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from hiera_video.tasks.protocols import classifying
from hiera_video.visualize.confusion import confusion_picture


class ConfusionPicture(Callback):
    """Paint the confusion matrix after `test` of a classification.

    Args:
        path: PNG file to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Paint the task's results."""
        if not trainer.is_global_zero:
            return
        results = classifying(pl_module).results
        picture = confusion_picture(results.outcomes.confusion(), results.class_names)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(self.path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("confusion", np.asarray(picture), dataformats="HWC")
