"""What this project uses of Lightning and PyTorch beyond their public members still works."""

from datetime import timedelta

import pytest
import torch
from lightning import Callback
from lightning.pytorch.demos.boring_classes import BoringModel
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import SIGTERMException

from hiera_video.tasks.lightning_private import (
    Position,
    batch_progress,
    go_on_within_epoch,
    keep_validation,
    leave_out_validation,
    log_by_steps,
    position_of,
    set_max_steps,
    skip_step_if,
    stop_after_step,
    timeout_of,
    unscales_gradients,
    validation_follows,
)
from hiera_video.tasks.sharded_strategy import ShardedStrategy
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


class SaveEpochs(Callback):
    """Save at the end of each epoch, as Lightning's own callback does."""

    def __init__(self, path):
        self.path = path

    def on_train_epoch_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(("steps", "position", "rest"), [(3, (0, 3, 3), 5), (8, (1, 0, 8), 0)])
def test_an_epoch_that_was_cut_short_is_gone_on_with(tmp_path, steps, position, rest):
    path = tmp_path / "last.ckpt"
    arguments = {"limit_train_batches": 8, "limit_val_batches": 0}
    quick_trainer(max_steps=steps, callbacks=[SaveEpochs(path)], **arguments).fit(BoringModel())
    checkpoint = torch.load(path, weights_only=True)
    assert position_of(checkpoint) == Position(*position)
    if rest:
        go_on_within_epoch(checkpoint, 0)
    torch.save(checkpoint, path)
    batches = Batches()
    trainer = quick_trainer(max_epochs=2, callbacks=[batches], **arguments)
    trainer.fit(BoringModel(), ckpt_path=path, weights_only=True)
    assert batches.seen == [*range(8 - rest, 8), *range(8)]


def test_logs_count_steps_also_after_a_resume_within_an_epoch(tmp_path):
    path, logged = tmp_path / "last.ckpt", []

    class SaveFirst(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 2:
                trainer.save_checkpoint(path)

    class Logs(DummyLogger):
        def log_metrics(self, metrics, step=None):
            logged.append(step)

    class Model(BoringModel):
        def on_train_batch_start(self, batch, batch_idx):
            log_by_steps(self.trainer)

        def training_step(self, batch, batch_idx):
            self.log("seen", batch_idx)
            return super().training_step(batch, batch_idx)

    arguments = {"limit_train_batches": 6, "limit_val_batches": 0, "log_every_n_steps": 1}
    for ckpt_path in (None, path):
        trainer = quick_trainer(callbacks=[SaveFirst()], logger=Logs(), **arguments)
        trainer.fit(Model(), ckpt_path=ckpt_path, weights_only=True)
    assert logged == [0, 1, 2, 3, 4, 5, 3, 4, 5]


class Validations(Batches):
    """Also the validations and their batches; keeps a checkpoint of each moment."""

    def __init__(self, folder=None, stop=None):
        super().__init__()
        self.folder, self.stop, self.saved = folder, stop, {}

    def save(self, trainer, moment):
        if self.folder is not None:
            self.saved[moment] = self.folder / f"{moment}.ckpt"
            trainer.save_checkpoint(self.saved[moment])

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        keep_validation(trainer, checkpoint)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        follows = validation_follows(trainer)
        assert follows == (batch_idx == 3)
        self.save(trainer, "before" if follows else "early")

    def on_validation_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.seen.append(f"validated {batch_idx}")
        self.save(trainer, "within")
        if batch_idx == self.stop:
            stop_after_step(trainer)

    def on_validation_end(self, trainer, pl_module):
        self.save(trainer, "after")


FOUR_AND_TWO = {"limit_train_batches": 4, "limit_val_batches": 2}


def test_a_validation_is_due_from_the_end_of_the_batch_before_until_its_own_end(tmp_path):
    whole = Validations(tmp_path)
    quick_trainer(callbacks=[whole], **FOUR_AND_TWO).fit(BoringModel())
    validation = ["validated 0", "validated 1"]
    assert whole.seen == [0, 1, 2, 3, *validation]
    for moment, rest in {
        "early": [3, *validation],
        "before": validation,
        "within": validation,
    }.items():
        path = whole.saved[moment]
        assert position_of(torch.load(path, weights_only=True)).validates == (moment != "early")
        resumed = Validations(tmp_path / "again")
        quick_trainer(callbacks=[resumed], **FOUR_AND_TWO).fit(
            BoringModel(), ckpt_path=path, weights_only=True
        )
        assert resumed.seen == rest
        checkpoint = torch.load(resumed.saved["after"], weights_only=True)
        assert not position_of(checkpoint).validates
    assert not position_of(torch.load(whole.saved["after"], weights_only=True)).validates


def test_a_validation_stops_after_a_batch_but_its_last():
    stopped = Validations(stop=0)
    with pytest.raises(SIGTERMException):
        quick_trainer(callbacks=[stopped], **FOUR_AND_TWO).fit(BoringModel())
    assert stopped.seen == [0, 1, 2, 3, "validated 0"]


def test_a_validation_that_was_due_can_be_left_out(tmp_path):
    whole = Validations(tmp_path)
    quick_trainer(callbacks=[whole], **FOUR_AND_TWO).fit(BoringModel())
    checkpoint = torch.load(whole.saved["before"], weights_only=True)
    leave_out_validation(checkpoint)
    torch.save(checkpoint, tmp_path / "next.ckpt")
    batches = Batches()
    trainer = quick_trainer(max_epochs=2, callbacks=[batches], limit_train_batches=4)
    trainer.fit(BoringModel(), ckpt_path=tmp_path / "next.ckpt", weights_only=True)
    assert batches.seen == [0, 1, 2, 3]


def test_the_limit_of_steps_can_be_moved():
    batches = Batches()

    class Move(Callback):
        def on_train_start(self, trainer, pl_module):
            set_max_steps(trainer, 3)

    trainer = quick_trainer(max_steps=5, callbacks=[Move(), batches], limit_train_batches=8)
    trainer.fit(BoringModel())
    assert batches.seen == [0, 1, 2]
    assert trainer.max_steps == 3


@pytest.mark.parametrize("skips", [False, True])
def test_a_fused_optimiser_can_skip_a_step(skips):
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([weight], 0.1, fused=True)
    weight.grad = torch.ones(3)
    assert not skip_step_if(optimizer, torch.tensor(skips))  # it has no state yet
    optimizer.step()
    before = weight.detach().clone()
    assert skip_step_if(optimizer, torch.tensor(skips))
    optimizer.step()
    assert torch.equal(weight, before) == skips
    assert float(optimizer.state[weight]["step"]) == 2 - skips
    assert not skip_step_if(torch.optim.AdamW([weight], 0.1, fused=False), torch.tensor(skips))


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


@pytest.mark.parametrize("strategy", [DDPStrategy, ShardedStrategy])
def test_the_timeout_of_a_strategy_is_known(strategy):
    timeout = timedelta(seconds=7)
    assert timeout_of(quick_trainer(strategy=strategy(timeout=timeout))) == timeout


def test_a_single_device_has_no_timeout():
    assert timeout_of(quick_trainer()) is None
