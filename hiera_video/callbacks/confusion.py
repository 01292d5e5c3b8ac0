"""The confusion matrix of a test, as a file and in TensorBoard."""

from pathlib import Path
from typing import Any

import numpy as np
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from hiera_video.visualize.confusion import confusion_picture


class ConfusionPicture(Callback):
    """Paint it after `test` of a classification.

    Args:
        path: PNG file to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Paint what the task has as its results."""
        task: Any = pl_module
        if not trainer.is_global_zero:
            return
        picture = confusion_picture(task.results.outcomes.confusion(), task.class_names)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(self.path)
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("confusion", np.asarray(picture), dataformats="HWC")
