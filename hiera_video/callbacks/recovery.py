"""A last checkpoint when a cluster ends the run, and resuming from it on other machines."""

import os
import signal
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import SIGTERMException
from torch import distributed

from datamodules.base import VideoDataModule
from hiera_video.callbacks.averaging import check_average
from hiera_video.callbacks.metrics_file import MetricsFile
from hiera_video.tasks.lightning_private import (
    batch_progress,
    go_on_within_epoch,
    log_by_steps,
    stop_after_step,
)


class SaveOnSigterm(Callback):
    """Stop all ranks after the same step when SIGTERM or Ctrl-C comes; save ``last.ckpt``.

    Lightning's own handler starts a collective within the signal, wherever the ranks are, and often
    hangs. Here the first rank notes the signal, and the others learn of it at the end of a batch.
    All stop once an optimiser's step is complete; a validation under way ends first. A second
    Ctrl-C stops at once. Nothing is saved after an ordinary error of one rank, as the others would
    wait for it.

    Args:
        folder: the run's folder of checkpoints.

    Attributes:
        received: number of the signal that came; 0: none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.received = 0
        self._interrupt: Any = None  # what Ctrl-C did before
        self._step = 0
        self._group: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the handlers; Lightning restores that of SIGTERM at the end."""
        self.received = 0
        signal.signal(signal.SIGTERM, self._note)
        self._interrupt = signal.signal(signal.SIGINT, self._note)
        if trainer.world_size > 1:  # on the CPU, so that no step waits for a GPU
            self._group = distributed.new_group(backend="gloo")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the handler of Ctrl-C."""
        if self._interrupt is not None:
            signal.signal(signal.SIGINT, self._interrupt)
            self._interrupt = None

    def _note(self, number: int, _: object) -> None:
        self.received = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._interrupt)
            # Not the log, which may be in the middle of a line.
            os.write(2, b"Ctrl-C: the step under way is completed and saved; again: stop now\n")

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Note the step, to see whether the batch completes one."""
        self._step = trainer.global_step

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Ask the first rank whether to stop."""
        told = torch.tensor(bool(self.received))
        if trainer.world_size > 1:
            distributed.broadcast(told, src=0, group=self._group)
        # Not while gradients accumulate, as no checkpoint holds them.
        if told and trainer.global_step > self._step:
            stop_after_step(trainer)  # on all ranks

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save a checkpoint if training ends because of a signal."""
        if isinstance(exception, SIGTERMException) and trainer.state.fn == "fit":
            trainer.save_checkpoint(self.folder / "last.ckpt")


class ContinueEpoch(Callback):
    """Continue an epoch with another number of processes, batch size or accumulation.

    The loader keeps its position as a number of samples, Lightning as a number of batches. Where
    batches have another size now, Lightning would end the epoch too early or too late. Its position
    is therefore set to what is left to load, which is a whole number of steps.
    """

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Correct the checkpoint before Lightning's loops read it.

        Raises:
            MisconfigurationException: only one of checkpoint and run has an average of weights.
        """
        if trainer.state.fn != "fit":
            return
        check_average(trainer, checkpoint)
        datamodule: Any = getattr(trainer, "datamodule", None)
        if not isinstance(datamodule, VideoDataModule):
            return
        progress = batch_progress(checkpoint)
        loader = datamodule.train_dataloader()  # at its position
        left = 0 if progress["is_last_batch"] else loader.batches_left
        shift = len(loader) - left - progress["current"]["processed"]
        progress["is_last_batch"] = not left
        progress["current"] = {stage: n + shift for stage, n in progress["current"].items()}
        if left:
            go_on_within_epoch(checkpoint, loader.sampler.epoch)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the file of metrics."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.continue_from(trainer.global_step)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """See that logs name the right step."""
        log_by_steps(trainer)
