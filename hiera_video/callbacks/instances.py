"""Detected objects, as the json file of results that COCO's evaluation takes."""

from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from datamodules.files import write_json
from hiera_video.tasks.named_classes import classifying


class InstanceFile(Callback):
    """Write ``predictions.json`` after `test`, in COCO's form of results.

    It is a list of objects: ``image_id``, ``category_id``, ``bbox`` (x, y, width, height in
    pixels), ``score``, and ``segmentation`` as run lengths. It is sorted by picture, so it does not
    depend on the number of processes. Numbers are exact, so AP computed from the file equals that
    of the test.

    Args:
        path: json file to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the detections of all processes, before the task resets its metric."""
        detections = classifying(pl_module).metric("test").detections()  # all processes take part
        if not trainer.is_global_zero:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, detections, indent=None)
