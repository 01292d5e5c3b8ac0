"""What a detector said of each box, in the csv that scores of AVA are made from."""

from pathlib import Path
from typing import Any

from lightning import Callback, LightningModule, Trainer

from datamodules.files import atomic_file
from hiera_video.results.ava_csv import write_ava_csv


class DetectionTable(Callback):
    """Write ``predictions.csv`` after `test`, in the form that AVA's evaluation takes.

    A row for each box and evaluated action, as `write_ava_csv` says: sorted, whatever the number of
    processes, and exact, so that scores made from the file are those of the test.

    Args:
        path: the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask the metric for what all processes saw, before the task resets it."""
        task: Any = pl_module
        metric = task.metrics["test_map"]
        detected = metric.detections()
        if not trainer.is_global_zero:
            return
        names = trainer.datamodule.video_names("test")  # pyright: ignore
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as temporary, open(temporary, "wb") as file:
            write_ava_csv(file, names, detected, metric.action_ids)
