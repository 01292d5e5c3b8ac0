"""At which steps numbers are logged: every ``log_every_n_steps``, and the last of a training."""

from typing import Any

from lightning import Callback, LightningModule, Trainer

from hiera_video.tasks.lightning_private import log_interval, set_log_interval


def completes_step(trainer: Trainer, batch_idx: int) -> bool:
    """Whether a training batch, counted from 0 in its epoch, is the last of an optimiser's step."""
    return trainer.is_last_batch or (batch_idx + 1) % trainer.accumulate_grad_batches == 0


class LogLastStep(Callback):
    """Log the last step of a training, so that one shorter than ``log_every_n_steps`` has a loss.

    During that step ``trainer.log_every_n_steps`` is 1, and all that logs at the usual steps logs.
    Place it before the callbacks that log when a batch starts.
    """

    def __init__(self) -> None:
        self._usual: int | None = None  # the usual interval, during the last step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See whether this batch completes the last step."""
        interval = log_interval(trainer)
        if interval and _is_last_step(trainer, batch_idx):
            self._usual = interval
            set_log_interval(trainer, 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go back to the usual interval."""
        if self._usual is not None:
            set_log_interval(trainer, self._usual)
            self._usual = None

    on_validation_start = on_train_end


def _is_last_step(trainer: Trainer, batch_idx: int) -> bool:
    if trainer.global_step + 1 == trainer.max_steps:
        return completes_step(trainer, batch_idx)
    return trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
