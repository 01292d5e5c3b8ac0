"""Progress as plain lines, readable in a terminal, a log file and a cluster's output."""

import logging
import time
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

log = logging.getLogger(__name__)


class ProgressLines(Callback):
    """Print step, loss, learning rate, clips per second and the time left.

    It waits for the device only at the steps at which it prints.

    Args:
        every_n_steps: optimiser steps from one line to the next.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._clips = 0
        self._steps = 0
        self._since = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._restart(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the numbers of the validation; its time is not training time."""
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        numbers = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        text = "  ".join(f"{name} {value.item():.4f}" for name, value in sorted(numbers.items()))
        log.info(f"epoch {trainer.current_epoch + 1} done  {text}")
        self._restart(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the clips of the batch; print at every n-th step."""
        self._clips += len(batch["video"]) * trainer.world_size
        step = trainer.global_step
        if step == self._steps or step % self.every_n_steps or not trainer.is_global_zero:
            return
        # Waits for the device.
        loss = trainer.callback_metrics.get("train/loss")
        shown = "" if loss is None else f"loss {float(loss):.4f}  "
        seconds = time.perf_counter() - self._since
        total = int(trainer.estimated_stepping_batches)
        left = (total - step) * seconds / (step - self._steps)
        memory = ""
        if torch.cuda.is_available():
            memory = f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        log.info(
            f"epoch {trainer.current_epoch + 1}  step {step}/{total}  {shown}"
            f"lr {trainer.optimizers[0].param_groups[-1]['lr']:.2e}  "
            f"{self._clips / seconds:.1f} clips/s{memory}  left {_clock(left)}"
        )
        self._restart(trainer)

    def _restart(self, trainer: Trainer) -> None:
        self._clips, self._steps, self._since = 0, trainer.global_step, time.perf_counter()


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}"
