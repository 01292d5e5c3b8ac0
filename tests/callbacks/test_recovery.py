"""A signal stops training after a whole step."""

import os
import signal

import pytest
import torch
from lightning import Callback
from lightning.pytorch.utilities.exceptions import SIGTERMException

from hiera_video.callbacks.recovery import SaveOnSigterm
from hiera_video.tasks.lightning_private import batch_progress
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer


class Terminate(Callback):
    """Send this process a signal when it is about to train on some batch."""

    def __init__(self, batch, number=signal.SIGTERM):
        self.batch, self.number = batch, number

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == self.batch:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("batch", "stops_after"), [(0, 2), (1, 2), (2, 4)])
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


def test_nothing_is_saved_after_another_error(tmp_path):
    class Fail(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            raise OSError("the disk is full")

    trainer = quick_trainer(limit_val_batches=0, callbacks=[SaveOnSigterm(tmp_path), Fail()])
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    with pytest.raises(OSError, match="the disk is full"):
        trainer.fit(task, datamodule=ColourVideos())
    assert not list(tmp_path.iterdir())
