"""The learning rate as one curve."""

from typing import Any

from lightning import Callback, LightningModule, Trainer


class LearningRate(Callback):
    """Log the learning rate of the head, ``lr``, to which layer-wise decay relates all others.

    Lightning's monitor writes one column per parameter group, a hundred for a large model. Nothing
    here waits for the device.
    """

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Log at the steps at which Lightning logs losses: every ``log_every_n_steps``."""
        step = trainer.global_step
        interval = trainer.log_every_n_steps  # pyright: ignore[reportAttributeAccessIssue]
        if interval and (step + 1) % interval == 0:
            for logger in trainer.loggers:
                logger.log_metrics({"lr": trainer.optimizers[0].param_groups[-1]["lr"]}, step=step)
