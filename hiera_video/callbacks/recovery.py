"""A last checkpoint when a cluster ends the run, and resuming from it on other machines."""

import os
import signal
from collections.abc import Iterator
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
    keep_validation,
    leave_out_validation,
    log_by_steps,
    position_of,
    set_max_steps,
    stop_after_step,
    timeout_of,
    validation_follows,
)
from hiera_video.tasks.protocols import data_of


class SaveOnSigterm(Callback):
    """Stop all ranks after the same batch when a signal comes; save ``last.ckpt``.

    The signals are SIGTERM, SIGUSR1 (with which SLURM can warn of its time limit, or of
    preemption), and, unless they are ignored, Ctrl-C and SIGHUP (the terminal is gone; nohup has it
    ignored); and SIGUSR2, for submitit, whose own handler would end the job at once: the run calls
    it when all is saved.

    Lightning's own handler starts a collective within the signal, wherever the ranks are, and often
    hangs. Here the first rank notes the signal, and the others learn of it at the end of a batch.
    All stop once an optimiser's step is complete. A validation stops, too: it is begun again when
    the run is resumed. If it comes between the batches of a step, it ends first, as no checkpoint
    holds their gradients. A second Ctrl-C stops at once. Nothing is saved after an ordinary error
    of one rank, as the others would wait for it.

    Args:
        folder: the run's folder of checkpoints.

    Attributes:
        received: number of the signal that came to the first rank; 0: none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.received = 0
        self._before: dict[int, Any] = {}  # what the signals did, without SIGTERM
        self._speaks = True
        self._step = -1
        self._questions = 0  # left in this validation
        self._group: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Replace the handlers; Lightning restores that of SIGTERM at the end."""
        self.received, self._speaks = 0, trainer.is_global_zero
        signal.signal(signal.SIGTERM, self._note)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            handler = signal.getsignal(number)
            ignored = handler is signal.SIG_IGN and number in (signal.SIGINT, signal.SIGHUP)
            if handler is not None and not ignored:  # None: a library in C has it
                self._before[number] = signal.signal(number, self._note)
        if trainer.world_size > 1:  # on the CPU, so that no step waits for a GPU
            timeout = timeout_of(trainer)
            self._group = distributed.new_group(backend="gloo", timeout=timeout)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Restore the handlers."""
        self.restore_handlers()

    def restore_handlers(self) -> None:
        """Restore the handlers of all signals but SIGTERM."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}

    def _note(self, number: int, _: object) -> None:
        self.received = number
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, self._before[signal.SIGINT])
            if self._speaks:  # not to the log, which may be in the middle of a line
                os.write(2, b"Ctrl-C: the step under way is completed and saved; again: stop now\n")

    def on_train_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Note the step, to see whether the batch completes one."""
        self._step = trainer.global_step

    def on_train_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Stop here if a signal has come."""
        self._stop_if_told(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do not begin a validation if the step before it was the last.

        Raises:
            SIGTERMException: it was.
        """
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            return
        if trainer.received_sigterm:
            raise SIGTERMException
        self._questions = self._all_have(trainer, sum(trainer.num_val_batches)) - 1

    def on_validation_batch_end(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Stop here if a signal has come, unless this is the last batch of a rank."""
        if self._questions > 0:  # never in an evaluation of its own
            self._questions -= 1
            self._stop_if_told(trainer)

    def between_batches(self, trainer: Trainer, loader: Any) -> Iterator[Any]:
        """The batches of a loader; see `stoppable`."""
        questions = self._all_have(trainer, len(loader)) - 1
        for number, batch in enumerate(loader, 1):
            yield batch
            if number <= questions:
                self._stop_if_told(trainer)
                if trainer.received_sigterm:
                    raise SIGTERMException

    def _stop_if_told(self, trainer: Trainer) -> None:
        """Ask the first rank whether to stop; all ranks ask at the same batch."""
        received = torch.tensor(self.received)
        if trainer.world_size > 1:
            distributed.broadcast(received, src=0, group=self._group)
        # Not while gradients accumulate, as no checkpoint holds them.
        if received and trainer.global_step > self._step:
            self.received = int(received)
            stop_after_step(trainer)  # on all ranks

    def _all_have(self, trainer: Trainer, batches: float) -> float:
        """The batches that each rank has: one may have one more than another."""
        fewest = torch.tensor(float(batches))
        if trainer.world_size > 1:
            distributed.all_reduce(fewest, distributed.ReduceOp.MIN, group=self._group)
        return fewest.item()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Save a checkpoint if training ends because of a signal."""
        if isinstance(exception, SIGTERMException) and trainer.state.fn == "fit":
            trainer.save_checkpoint(self.folder / "last.ckpt")


def stoppable(trainer: Trainer, loader: Any) -> Iterator[Any]:
    """The batches of a loader that a callback reads, within a validation of a training.

    A signal stops the training between two of them, as it does between those of the validation.

    Raises:
        SIGTERMException: a signal has come.
    """
    savers = [c for c in trainer.callbacks if isinstance(c, SaveOnSigterm)]  # pyright: ignore
    yield from savers[0].between_batches(trainer, loader) if savers else loader


class ContinueEpoch(Callback):
    """Continue an epoch with another number of processes, batch size or accumulation.

    The loader keeps its position as a number of samples, Lightning as a number of batches. Where
    batches have another size now, Lightning would end the epoch too early or too late. Its position
    is therefore set to what is left to load, which is a whole number of steps.

    A training that ended before a validation that was due, or within it, begins with it.
    """

    def __init__(self) -> None:
        self._resumes = False
        self._validates = False  # first
        self._max_steps: int | None = None  # while the limit is off

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Note in the checkpoint whether a validation is due."""
        if trainer.state.fn == "fit":
            keep_validation(trainer, checkpoint)

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
        position = position_of(checkpoint)
        self._resumes, self._validates = True, position.validates
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
        elif not _validates(trainer, position.epochs):
            leave_out_validation(checkpoint)
            self._validates = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the limit of steps off while Lightning reads the checkpoint.

        With a limit it miscounts the epochs, and does not make a last validation that is due. The
        schedule, which needs the limit, is made by now.
        """
        if self._resumes:
            self._max_steps = trainer.max_steps
            set_max_steps(trainer, -1)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the file of metrics."""
        for logger in trainer.loggers:
            if isinstance(logger, MetricsFile):
                logger.continue_from(trainer.global_step, self._validates)
        if not (self._validates and validation_follows(trainer)):
            self._restore_max_steps(trainer)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let the training end after its limit of steps."""
        if not trainer.sanity_checking:
            self._restore_max_steps(trainer)

    def _restore_max_steps(self, trainer: Trainer) -> None:
        if self._max_steps is not None:
            set_max_steps(trainer, self._max_steps)
            self._max_steps = None

    def on_train_batch_start(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """See that logs name the right step."""
        log_by_steps(trainer)


def _validates(trainer: Trainer, epoch: int) -> bool:
    """Whether a training, as it is set up now, validates in an epoch, counted from 0."""
    every = trainer.check_val_every_n_epoch
    has_videos = "val" in data_of(trainer).manifests and bool(trainer.limit_val_batches)
    return has_videos and (every is None or (epoch + 1) % every == 0)
