"""What tests put into a run to disturb it, or to see what it does."""

import faulthandler
import json
import os
import signal
import time

from lightning import Callback

import datamodules.video.opening
from datamodules.folder import VideoFolderDataModule
from datamodules.video.decoding import VideoFile
from hiera_video.errors import UsageError


class TerminateAt(Callback):
    """Send this process a signal after some step: SIGTERM, as a cluster would, or another."""

    def __init__(self, step, number=signal.SIGTERM):
        self.step, self.number = step, number

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), self.number)


class SignalInEvaluation(Callback):
    """Send the first process a signal before some batch of a validation or test.

    Batches are counted from 0, and so is the epoch of a training.
    """

    def __init__(self, batch, number, epoch=0):
        self.batch, self.number, self.epoch = batch, number, epoch

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        due = (trainer.current_epoch, batch_idx) == (self.epoch, self.batch)
        if due and trainer.is_global_zero:
            os.kill(os.getpid(), self.number)

    on_test_batch_start = on_validation_batch_start


class SpoilAt(Callback):
    """Make the weights infinite after some step, so that no checkpoint is saved any more."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            for weight in pl_module.parameters():
                weight.data.fill_(float("inf"))


class KillAt(Callback):
    """End this process at once when it is about to train on some batch."""

    def __init__(self, batch):
        self.batch = batch

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.fit_loop.epoch_loop.total_batch_idx == self.batch:
            os.kill(os.getpid(), signal.SIGKILL)


class DieOnce(Callback):
    """End the second process at once after some step, unless a file says that this was done."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        due = trainer.global_step == self.step and trainer.global_rank == 1
        if due and not os.path.exists(self.path):
            open(self.path, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)


class FailIn(Callback):
    """Raise an error in one process when some hook is called, once some steps are made."""

    def __init__(self, hook, step=0, rank=1):
        self.step, self.rank = step, rank
        setattr(self, hook, self._fail)

    def _fail(self, trainer, *_, **__):
        if trainer.global_step >= self.step and trainer.global_rank == self.rank:
            raise UsageError("this is the cause", 1)


class WaitAt(Callback):
    """Wait after some step until a file is there, in all processes or in one of them."""

    def __init__(self, step, path, rank=None, hook="on_train_batch_end"):
        self.step, self.path, self.rank = step, path, rank
        setattr(self, hook, self._wait)

    def _wait(self, trainer, *_, **__):
        if trainer.global_step == self.step and self.rank in (None, trainer.global_rank):
            while not os.path.exists(self.path):
                time.sleep(0.05)


class Record(Callback):
    """Append what each training batch holds to a file a rank: global step, video ids, seeds."""

    def __init__(self, path):
        self.path = path

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        with open(f"{self.path}.{trainer.global_rank}", "a") as file:
            row = [trainer.global_step, batch["video_id"].tolist(), batch["seed"].tolist()]
            file.write(json.dumps(row) + "\n")


class FaultyFile(VideoFile):
    """A decoder that hangs or crashes on files of that name."""

    def __init__(self, path):
        if "hang" in path:
            time.sleep(1000)
        if "crash" in path:
            faulthandler.disable()
            os.kill(os.getpid(), signal.SIGSEGV)
        super().__init__(path)


class FaultyVideos(VideoFolderDataModule):
    """Videos read by it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        datamodules.video.opening.VideoFile = FaultyFile
