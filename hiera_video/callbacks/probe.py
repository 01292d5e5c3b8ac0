"""Probes of the encoder's features during pretraining."""

from typing import Any, cast

from lightning import Callback, LightningModule, Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hiera_video.callbacks.recovery import stoppable
from hiera_video.metrics.probe import FeatureProbe
from hiera_video.tasks.evaluation import EvaluatedTask
from hiera_video.tasks.probing import add_all, add_videos, check_classes
from hiera_video.tasks.protocols import data_of


class Probe(Callback):
    """Log ``val/knn_top1`` and ``val/linear_top1`` of the encoder's features; see `FeatureProbe`.

    When it is due, the probes are tested on the batches of the validation that is under way. They
    are trained on training videos from a loader of their own, with ``data.val_views`` and without
    augmentation. Nothing random is drawn, so that training goes on as without a probe.

    Args:
        every_n_epochs: probe at the validation of every n-th epoch, which must have one; None:
            never.
        max_videos: train on so many videos, at equal steps through the split; None: on all.
        k: as in `FeatureProbe`.
        l2: as in `FeatureProbe`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        every_n_epochs: int | None,
        max_videos: int | None = 20_000,
        k: int = 20,
        l2: float = 1e-3,
    ) -> None:
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"every_n_epochs must be at least 1 or null, not {every_n_epochs}")
        if max_videos is not None and max_videos < 2:
            raise ValueError(f"max_videos must be at least 2 or null, not {max_videos}")
        FeatureProbe(1, 1, k, l2)  # refuses wrong values before data is read
        self.every_n_epochs, self.max_videos, self.k, self.l2 = every_n_epochs, max_videos, k, l2
        self._probe: FeatureProbe | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """See that the data can be probed.

        Raises:
            MisconfigurationException: there is no validation split, no validation when a probe is
                due, or not enough labels.
        """
        if stage != "fit" or self.every_n_epochs is None:
            return
        datamodule = data_of(trainer)
        if "val" not in datamodule.manifests:
            raise MisconfigurationException("a probe is judged on data.val, which is null")
        validates = trainer.check_val_every_n_epoch
        if validates is not None and self.every_n_epochs % validates:
            raise MisconfigurationException(
                f"callbacks.probe.every_n_epochs={self.every_n_epochs}: a probe needs a "
                f"validation, and there is one every {validates} epochs; set a multiple, or "
                f"trainer.check_val_every_n_epoch={self.every_n_epochs}"
            )
        if self.max_videos is not None and self.max_videos < trainer.world_size:
            raise MisconfigurationException(
                f"callbacks.probe.max_videos={self.max_videos} is less than one a process"
            )
        check_classes(datamodule)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Start with the training videos; an average of weights, if any, is in place by now."""
        due = self.every_n_epochs and (trainer.current_epoch + 1) % self.every_n_epochs == 0
        if batch_idx or not due or trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        task, datamodule = cast(EvaluatedTask, pl_module), data_of(trainer)
        width, classes = task.model.stage_dims[-1], len(datamodule.class_names or ())
        self._probe = FeatureProbe(width, classes, self.k, self.l2).to(task.device)
        loader = datamodule.evaluation_loader("train", self.max_videos)
        add_all(self._probe, task, stoppable(trainer, loader))

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Add the validation videos of the batch."""
        if self._probe is not None:
            with trainer.precision_plugin.forward_context():
                add_videos(self._probe, cast(EvaluatedTask, pl_module), batch, train=False)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the accuracy of both probes."""
        if self._probe is None:
            return
        for name, value in self._probe.compute().items():
            cast(EvaluatedTask, pl_module).log_equal(f"val/{name}", float(value))
        self._probe = None
