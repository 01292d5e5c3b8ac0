"""The hooks of ``validate`` and ``test``, which are the same for all tasks."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from lightning import LightningModule
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn

from hiera_video.augment.basic import Normalize
from hiera_video.tasks.protocols import VideoData, data_of

Batch = dict[str, Any]  # tensors, and in evaluation the list `failed`


class EvaluatedTask(LightningModule):
    """A network that is evaluated on the ``val`` and ``test`` splits, each with its metric.

    A subclass fills `metrics` before the first batch and says in `evaluate` what a batch adds to
    them.

    Attributes:
        needs_labels: whether it can train only on videos with labels, of the kind in manifests.
        model: the network; None until the trainer asks for it.
        normalize: turns uint8 clips into the network's input.
        metrics: the metric of each split that is evaluated, by the name of the split.
        results: of the last `validate` or `test`, if they are more than numbers; None before.
    """

    needs_labels = False

    def __init__(self, normalize: Normalize) -> None:
        super().__init__()
        self.model: Any = None
        self.normalize = normalize
        self.metrics = nn.ModuleDict()
        self.results: Any = None

    @property
    def datamodule(self) -> VideoData:
        """The trainer's data module.

        Raises:
            MisconfigurationException: it was given loaders, or none at all.
        """
        data: Any = data_of(self.trainer)
        if data is None:
            raise MisconfigurationException(
                "a task needs a data module, not loaders alone: give the trainer datamodule=..."
            )
        return data

    def metric(self, split: str) -> Any:
        """The metric of ``val`` or ``test``.

        Raises:
            KeyError: the split is not being evaluated.
        """
        return self.metrics[split]

    @abstractmethod
    def evaluate(self, batch: Batch, split: str) -> dict[str, Tensor] | None:
        """Add a batch to the metric of its split.

        Args:
            batch: all views of each of its videos; the list ``failed`` has the videos that could
                not be decoded. There may be no clip at all.
            split: ``val`` or ``test``.

        Returns:
            Rows for callbacks, such as the probabilities of each view; None if there are none.
        """

    def summarize(self, split: str) -> tuple[Mapping[str, Any], Any]:
        """Conclude an evaluation; all processes take part.

        Returns:
            The numbers to log, by name, and the `results`, or None where there are only numbers.
        """
        return self.metric(split).compute(), None

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Evaluate a batch of the validation split."""
        return self.evaluate(batch, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor] | None:
        """Evaluate a batch of the test split."""
        return self.evaluate(batch, "test")

    def on_validation_epoch_end(self) -> None:
        """Log the numbers of the validation split."""
        self._end_evaluation("val")

    def on_test_epoch_end(self) -> None:
        """Log the numbers of the test split."""
        self._end_evaluation("test")

    def log_equal(self, name: str, value: float) -> None:
        """Log a number of an epoch that is the same on all ranks already."""
        # Lightning warns without sync_dist. The mean of equal numbers may be rounded, unlike this.
        self.log(name, value, sync_dist=True, reduce_fx="max")

    def _end_evaluation(self, split: str) -> None:
        numbers, results = self.summarize(split)
        for name, value in numbers.items():
            self.log_equal(f"{split}/{name}", float(value))
        if self.trainer.state.fn != "fit":
            self.results = results
        self.metric(split).reset()
