"""The scores of a detector's boxes, as the csv file that AVA's evaluation takes."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from datamodules.files import atomic_file
from hiera_video.results.ava_csv import write_ava_csv
from hiera_video.tasks.named_classes import classifying
from hiera_video.tasks.protocols import action_data_of


class DetectionTable(Callback):
    """Write ``predictions.csv`` after `test`, in the form that AVA's evaluation takes.

    It has a row for each box and evaluated action; see `write_ava_csv`. Rows are sorted, so the
    file does not depend on the number of processes. Numbers are exact, so the mAP computed from the
    file equals that of the test.

    Args:
        path: CSV file to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the boxes of all processes, before the task resets its metric."""
        metric = classifying(pl_module).metric("test")
        detected = metric.detections()  # all processes take part
        if not trainer.is_global_zero:
            return
        names = action_data_of(trainer).video_names("test")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(self.path) as temporary, open(temporary, "wb") as file:
            write_ava_csv(file, names, detected, metric.action_ids)
