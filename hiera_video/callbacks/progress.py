"""Progress: lines for a training, and for an evaluation a bar on a terminal, lines elsewhere."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from lightning import LightningModule, Trainer

from hiera_video.callbacks.stopwatch import Stopwatch
from hiera_video.tasks.optimization import steps_left
from hiera_video.terminal import progress_line

log = logging.getLogger(__name__)


class ProgressLines(Stopwatch):
    """Print step, loss, learning rate, clips per second and the time left of a training.

    Speed and waiting are of the time since the last line: clips per second of all ranks, if they
    are as fast as the first, and the share that the first waits for data (`Stopwatch`). The line of
    the first step gives a first estimate of the time left. The callback waits for the device only
    at the steps at which it prints. In an evaluation, batches are counted by `progress_line`.

    Args:
        every_n_steps: optimiser steps from one line to the next; 0: only the first has one.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        super().__init__()
        if every_n_steps < 0:
            raise ValueError(f"every_n_steps must be at least 0, not {every_n_steps}")
        self.every_n_steps = every_n_steps
        self._rate = math.nan
        self._bar = ExitStack()  # of an evaluation, while it runs
        self._show: Callable[[int], None] | None = None

    def on_train_batch_start(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Note the rate of this step; when it has ended, the optimiser has that of the next."""
        super().on_train_batch_start(trainer, *args, **kwargs)
        self._rate = trainer.optimizers[0].param_groups[-1]["lr"]

    def on_step_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print at the first step and at every n-th."""
        step, first = trainer.global_step, self.is_first_step()
        due = first or (self.every_n_steps and step % self.every_n_steps == 0)
        if not due or not trainer.is_global_zero:
            return
        # Waits for the device.
        loss = trainer.callback_metrics.get("train/loss")
        shown = "" if loss is None else f"loss {float(loss):.4f}  "
        lap = self.take_lap()
        steps = steps_left(trainer)
        left = steps * lap.seconds / lap.steps
        memory = ""
        if torch.cuda.is_available():
            memory = f"  {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        log.info(
            f"epoch {trainer.current_epoch + 1}  step {step}/{step + steps}  {shown}"
            f"lr {self._rate:.2e}  "
            f"{lap.text(trainer.world_size)}{memory}  "
            f"left {'about ' if first else ''}{_clock(left)}"
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count the batches; within a training, the numbers stand in for the last line."""
        super().on_validation_start(trainer, pl_module)
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

    def on_test_end(self, *_: Any, **__: Any) -> None:
        """Leave the terminal to others."""
        self._bar.close()
        self._show = None

    on_predict_end = on_exception = on_test_end

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the numbers of a training's validation."""
        self.on_test_end()
        if trainer.sanity_checking or trainer.state.fn != "fit" or not trainer.is_global_zero:
            return
        numbers = {k: v for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        text = listed({name: value.item() for name, value in sorted(numbers.items())})
        log.info(f"epoch {trainer.current_epoch + 1} done  {text}")

    def _count(
        self, trainer: Trainer, name: str, batches: Sequence[int | float], last: bool = True
    ) -> None:
        """Show how many of the batches are done, from now to the end, with a `last` line there."""
        total = sum(batches)
        if trainer.is_global_zero and total < math.inf:
            show = self._bar.enter_context(progress_line(name, "batches"))
            self._show = lambda done: show(done, int(total)) if last or done < total else None


def _clock(seconds: float) -> str:
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}"


def listed(metrics: Mapping[str, float]) -> str:
    """Names and values in one line; accuracies, shares in [0, 1], are shown in percent."""
    return "  ".join(
        f"{name} {value:.2%}" if "top" in name or "accuracy" in name else f"{name} {value:.4f}"
        for name, value in metrics.items()
    )
