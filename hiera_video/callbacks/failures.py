"""A list of the videos that an evaluation could not decode."""

import csv
import logging
from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class FailedVideos(Callback):
    """Log each video that cannot be decoded and append it to a CSV file (path, reason).

    Args:
        path: the file; it is there only if something failed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the failures of a batch."""
        self._note(trainer, "val", batch)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the failures of a batch."""
        self._note(trainer, "test", batch)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Note the failures of a batch."""
        self._note(trainer, "predict", batch)

    def _note(self, trainer: Trainer, split: str, batch: Any) -> None:
        if not batch["failed"]:
            return
        manifest = trainer.datamodule.manifests[split]  # pyright: ignore
        with open(self.path, "a", newline="", encoding="utf-8") as file:
            for video_id, _, reason in batch["failed"]:
                log.warning(f"not decoded: {reason}")
                csv.writer(file).writerow([manifest.path(video_id), reason])
