"""What this project uses of Lightning and PyTorch beyond their public members still works."""

import pytest
import torch
from lightning import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.utilities.exceptions import SIGTERMException

from hiera_video.tasks.lightning_private import (
    batch_progress,
    stop_after_step,
    unscales_gradients,
)
from tests.quick_trainer import quick_trainer


class Save(Callback):
    """Stop after some batch; save a checkpoint when training is interrupted."""

    def __init__(self, path, batch):
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if batch_idx == self.batch:
            stop_after_step(trainer)

    def on_exception(self, trainer, pl_module, exception):
        trainer.save_checkpoint(self.path)


class Batches(Callback):
    """The batches of an epoch that are trained on."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append(batch_idx)


@pytest.fixture
def stopped(tmp_path):
    """A checkpoint of a training of 8 batches that was stopped after the third."""
    batches = Batches()
    trainer = quick_trainer(
        callbacks=[Save(tmp_path / "last.ckpt", 2), batches],
        limit_train_batches=8,
        limit_val_batches=0,
    )
    with pytest.raises(SIGTERMException):
        trainer.fit(BoringModel())
    assert batches.seen == [0, 1, 2]
    return tmp_path / "last.ckpt"


def resume(path):
    """The batches that a training goes on with."""
    batches = Batches()
    trainer = quick_trainer(callbacks=[batches], limit_train_batches=8, limit_val_batches=0)
    trainer.fit(BoringModel(), ckpt_path=path, weights_only=True)
    return batches.seen


def test_training_stops_when_the_step_is_counted(stopped):
    checkpoint = torch.load(stopped, weights_only=True)
    assert checkpoint["global_step"] == 3
    assert batch_progress(checkpoint)["current"]["completed"] == 3
    assert not batch_progress(checkpoint)["is_last_batch"]
    assert resume(stopped) == [3, 4, 5, 6, 7]


def test_the_place_in_an_epoch_can_be_moved(stopped):
    checkpoint = torch.load(stopped, weights_only=True)
    progress = batch_progress(checkpoint)
    progress["current"] = {stage: count + 3 for stage, count in progress["current"].items()}
    torch.save(checkpoint, stopped)
    assert resume(stopped) == [6, 7]


@pytest.mark.parametrize("fused", [False, True])
def test_fused_optimisers_are_given_scaled_gradients(fused):
    norms = []

    class Clips(BoringModel):
        def configure_optimizers(self):
            return torch.optim.AdamW(self.parameters(), 1e-3, fused=fused)

        def configure_gradient_clipping(self, optimizer, **kwargs):
            assert unscales_gradients(optimizer) == fused
            norms.append(float(self.layer.weight.grad.norm()))

    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        precision = MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", scale))
        trainer = quick_trainer(plugins=[precision], limit_train_batches=1, limit_val_batches=0)
        trainer.fit(Clips())
    assert norms[1] / norms[0] == pytest.approx(1024 if fused else 1, rel=0.01)
