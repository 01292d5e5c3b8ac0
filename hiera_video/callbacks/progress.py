"""Progress: lines for a training, and for an evaluation a bar on a terminal, lines elsewhere."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer

from hiera_video.terminal import progress_line

log = logging.getLogger(__name__)


class ProgressLines(Callback):
    """Print step, loss, learning rate, clips per second and the time left of a training.

    The line of the first step gives a first estimate of that time. The callback waits for the
    device only at the steps at which it prints. In an evaluation, batches are counted by
    `progress_line`.

    Args:
        every_n_steps: optimiser steps from one line to the next.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._clips = 0
        self._steps = 0
        self._since = 0.0
        self._first_step = 0
        self._bar = ExitStack()  # of an evaluation, while it runs
        self._show: Callable[[int], None] | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._first_step = trainer.global_step + 1
        self._restart(trainer)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Restart the clock at the first batch: the decoding processes have started by then."""
        if not self._clips and trainer.global_step < self._first_step:
            self._restart(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the clips of the batch; print at the first step and at every n-th."""
        self._clips += len(batch["video"]) * trainer.world_size
        step = trainer.global_step
        due = step == self._first_step or step % self.every_n_steps == 0
        if step == self._steps or not due or not trainer.is_global_zero:
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
            f"{self._clips / seconds:.1f} clips/s{memory}  "
            f"left {'about ' if step == self._first_step else ''}{_clock(left)}"
        )
        self._restart(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count the batches; within a training, the numbers stand in for the last line."""
        if not trainer.sanity_checking:
            self._count(trainer, "validate", trainer.num_val_batches, trainer.state.fn != "fit")

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count the batches."""
        self._count(trainer, "test", trainer.num_test_batches)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count the batches."""
        self._count(trainer, "predict", trainer.num_predict_batches)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        if self._show is not None:
            self._show(batch_idx + 1)

    on_validation_batch_end = on_predict_batch_end = on_test_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the terminal to others."""
        self._bar.close()
        self._show = None

    on_predict_end = on_test_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the numbers of a training's validation; its time is not training time."""
        self.on_test_end(trainer, pl_module)
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        numbers = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        text = "  ".join(f"{name} {value.item():.4f}" for name, value in sorted(numbers.items()))
        log.info(f"epoch {trainer.current_epoch + 1} done  {text}")
        self._restart(trainer)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the terminal to the error."""
        self.on_test_end(trainer, pl_module)

    def _count(
        self, trainer: Trainer, name: str, batches: Sequence[int | float], last: bool = True
    ) -> None:
        """Show how many of the batches are done, from now to the end, with a `last` line there."""
        total = sum(batches)
        if trainer.is_global_zero and total < math.inf:
            show = self._bar.enter_context(progress_line(name, "batches"))
            self._show = lambda done: show(done, int(total)) if last or done < total else None

    def _restart(self, trainer: Trainer) -> None:
        self._clips, self._steps, self._since = 0, trainer.global_step, time.perf_counter()


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}"
