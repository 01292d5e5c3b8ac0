"""A signal stops training after a whole step."""

import os
import signal

import pytest
import torch
from lightning import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from hiera_video.callbacks.recovery import ContinueEpoch, SaveOnSigterm, stoppable
from hiera_video.tasks.lightning_private import Position, batch_progress, position_of
from hiera_video.tasks.pretraining import PretrainingTask
from hiera_video.tasks.protocols import data_of
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer


@pytest.fixture(autouse=True)
def _default_handlers():
    """Those of a shell's foreground job; its background jobs ignore SIGINT."""
    defaults = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in defaults.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Terminate(Callback):
    """Send this process a signal when it is about to train on some batch."""

    def __init__(self, batch, number=signal.SIGTERM):
        self.batch, self.number = batch, number

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize(
    ("batch", "stops_after", "number"),
    [
        *((0, 2, signal.SIGTERM), (1, 2, signal.SIGTERM), (2, 4, signal.SIGTERM)),
        *((0, 2, signal.SIGINT), (1, 2, signal.SIGINT), (2, 4, signal.SIGINT)),
        (1, 2, signal.SIGHUP),
    ],
)
def test_a_step_of_several_batches_is_completed(tmp_path, batch, stops_after, number):
    handler = signal.getsignal(number)
    saver = SaveOnSigterm(tmp_path)
    trainer = quick_trainer(
        accumulate_grad_batches=2,
        limit_val_batches=0,
        callbacks=[saver, Terminate(batch, number)],
    )
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    with pytest.raises(SIGTERMException):
        trainer.fit(task, datamodule=ColourVideos(train="8", batch_size=1))
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == stops_after // 2
    assert batch_progress(checkpoint)["current"]["completed"] == stops_after
    assert saver.received == number
    assert signal.getsignal(number) == handler


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_an_ignored_signal_stays_so(tmp_path, number):
    signal.signal(number, signal.SIG_IGN)  # as by nohup, or for a shell's background job
    trainer = quick_trainer(
        limit_val_batches=0, callbacks=[SaveOnSigterm(tmp_path), Terminate(0, number)]
    )
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    trainer.fit(task, datamodule=ColourVideos(train="4", batch_size=2))
    assert trainer.global_step == 2
    assert signal.getsignal(number) == signal.SIG_IGN


class Interrupt(Callback):
    """Press Ctrl-C in the validation, or just before; note its batches."""

    def __init__(self, moment):
        self.moment, self.batches = moment, []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.press(-1, trainer.is_last_batch)

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append(batch_idx)
        self.press(batch_idx)

    def press(self, moment, now=True):
        if now and moment == self.moment:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize(("moment", "batches"), [(-1, []), (0, [0]), (1, [0, 1]), (2, [0, 1, 2])])
def test_a_validation_stops_after_the_batch_under_way(tmp_path, moment, batches):
    interrupt = Interrupt(moment)
    trainer = quick_trainer(callbacks=[interrupt, SaveOnSigterm(tmp_path), ContinueEpoch()])
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    data = ColourVideos(val="6", eval_batch_size=2)
    if moment == 2:  # nothing is left to stop
        trainer.fit(task, datamodule=data)
        assert "val/loss" in trainer.callback_metrics
        return
    with pytest.raises(SIGTERMException):
        trainer.fit(task, datamodule=data)
    assert interrupt.batches == batches
    assert "val/loss" not in trainer.callback_metrics
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert position_of(checkpoint) == Position(0, 0, 3, validates=True)


def test_a_validation_between_the_batches_of_a_step_ends_first(tmp_path):
    interrupt = Interrupt(0)
    trainer = quick_trainer(
        accumulate_grad_batches=2,
        val_check_interval=1,
        callbacks=[interrupt, SaveOnSigterm(tmp_path), ContinueEpoch()],
    )
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    with pytest.raises(SIGTERMException):
        trainer.fit(task, datamodule=ColourVideos(train="8", batch_size=2, eval_batch_size=2))
    assert interrupt.batches == [0, 1, 2]
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert position_of(checkpoint) == Position(0, 2, 1, validates=True)


def test_what_a_callback_reads_in_a_validation_stops_too(tmp_path):
    read = []

    class Read(Interrupt):
        def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx):
            for number, _ in enumerate(
                stoppable(trainer, data_of(trainer).evaluation_loader("train"))
            ):
                read.append(number)
                self.press(number)

    trainer = quick_trainer(callbacks=[Read(1), SaveOnSigterm(tmp_path), ContinueEpoch()])
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    with pytest.raises(SIGTERMException):
        trainer.fit(task, datamodule=ColourVideos(eval_batch_size=2))
    assert read == [0, 1]
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert position_of(checkpoint).validates


def test_nothing_is_saved_after_another_error(tmp_path):
    class Fail(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            raise OSError("the disk is full")

    trainer = quick_trainer(limit_val_batches=0, callbacks=[SaveOnSigterm(tmp_path), Fail()])
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    with pytest.raises(OSError, match="the disk is full"):
        trainer.fit(task, datamodule=ColourVideos())
    assert not list(tmp_path.iterdir())
