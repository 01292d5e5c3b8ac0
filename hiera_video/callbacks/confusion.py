"""What is taken for what: the confusion matrix and the accuracy of each class, as pictures."""

from collections.abc import Sequence
from pathlib import Path

from lightning import Callback, LightningModule, Trainer

from hiera_video.callbacks.pictures import log_picture, showing
from hiera_video.metrics.outcomes import Outcomes
from hiera_video.tasks.named_classes import classifying
from hiera_video.visualize.class_accuracy import class_accuracy_picture
from hiera_video.visualize.confusion import confusion_picture

MOST_CLASSES = 40  # in a picture of a logger, so that names are legible there
MOST_CURVES = 20  # classes


class ConfusionPicture(Callback):
    """Paint the confusion matrix after `test` of a classification.

    TensorBoard, Weights & Biases and MLflow also get it after each validation of a training, and
    the accuracy of each class: as bars, and for at most 20 classes as curves. Of more than 40
    classes, their pictures show those that are confused most and those that are worst; the file
    shows all.

    Args:
        path: PNG file to write.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the pictures of a validation, before the task resets its metric."""
        if trainer.state.fn != "fit" or trainer.sanity_checking or not showing(trainer.loggers):
            return
        task = classifying(pl_module)
        outcomes = task.metric("val").outcomes()  # all processes take part
        if trainer.is_global_zero:
            _log(trainer, "val", outcomes, task.class_names or ())

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Paint the task's results."""
        if not trainer.is_global_zero:
            return
        results = classifying(pl_module).results
        picture = confusion_picture(results.outcomes.confusion(), results.class_names)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(self.path)
        if showing(trainer.loggers):
            _log(trainer, "test", results.outcomes, results.class_names)


def _log(trainer: Trainer, split: str, outcomes: Outcomes, names: Sequence[str]) -> None:
    accuracy, videos = outcomes.class_accuracy()
    if not videos.any():
        return
    step = trainer.global_step
    matrix = confusion_picture(outcomes.confusion(), names, MOST_CLASSES)
    bars = class_accuracy_picture(accuracy, videos, names, MOST_CLASSES)
    caption = "rows: label; columns: predicted; darker: a greater share of the row"
    log_picture(trainer.loggers, f"{split}/confusion", matrix, step, caption)
    caption = "top-1 of each class, the lowest on top, and its number of videos"
    log_picture(trainer.loggers, f"{split}/class_accuracy", bars, step, caption)
    if len(names) <= MOST_CURVES:
        present = videos.nonzero()[0].tolist()
        values = {f"{split}_class/{names[i]}": float(accuracy[i]) for i in present}
        if split == "val":
            step -= 1  # Lightning's, at which it logs the metrics of this validation
        for logger in showing(trainer.loggers):
            logger.log_metrics(values, step)
