"""Wherever a training is saved, it goes on with exactly what follows, validations included."""

from functools import partial

import pytest
import torch
from lightning import Callback

from hiera_video.callbacks.recovery import ContinueEpoch
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer


class Events(Callback):
    """What a training does: its batches, with the step before them, and its validations."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append((trainer.current_epoch, batch_idx, trainer.global_step))

    def on_validation_start(self, trainer, pl_module):
        self.seen.append((trainer.current_epoch, "validation", trainer.global_step))

    def on_validation_end(self, trainer, pl_module):
        loss = trainer.callback_metrics["val/loss"].item()
        self.seen.append((trainer.current_epoch, "validated", loss))


class SaveAlways(Callback):
    """Save whenever a batch or a validation ends, with what is to follow."""

    def __init__(self, folder, events):
        self.folder, self.events = folder, events
        self.saved = []  # file and number of events before

    def save(self, trainer, done):
        path = self.folder / f"{len(self.saved)}.ckpt"
        trainer.save_checkpoint(path)
        self.saved.append((path, done))

    def on_train_batch_end(self, trainer, *args):
        self.save(trainer, len(self.events.seen))

    def on_train_epoch_end(self, trainer, pl_module):
        self.save(trainer, len(self.events.seen))

    def on_validation_batch_end(self, trainer, *args):
        self.save(trainer, len(self.events.seen) - 1)  # the validation begins again

    def on_validation_end(self, trainer, pl_module):
        self.save(trainer, len(self.events.seen))


def fit(callbacks, path=None, **settings):
    """Train for two batches an epoch, with two batches a validation."""
    trainer = quick_trainer(callbacks=[ContinueEpoch(), *callbacks], **settings)
    task = PretrainingTask(partial(tiny_mae, embed_dim=8), mask_ratio=0.5)
    data = ColourVideos(train="4", val="4", batch_size=2, eval_batch_size=2)
    trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)
    return task.state_dict()


@pytest.mark.parametrize(
    "settings",
    [
        {"max_epochs": 2},
        {"max_epochs": 1, "val_check_interval": 1},
        {"max_epochs": 2, "val_check_interval": 3, "check_val_every_n_epoch": None},
        {"max_epochs": 3, "max_steps": 4},
    ],
    ids=lambda settings: " ".join(f"{name}={value}" for name, value in settings.items()),
)
def test_a_training_goes_on_with_what_follows(tmp_path, settings):
    events = Events()
    save = SaveAlways(tmp_path, events)
    weights = fit([events, save], **settings)
    assert {"validation", "validated"} <= {what for _, what, _ in events.seen}
    for path, done in save.saved:
        again = Events()
        resumed = fit([again], path, **settings)
        assert again.seen == events.seen[done:], path
        for key, value in weights.items():
            assert torch.equal(resumed[key], value), (path, key)


@pytest.mark.parametrize(
    "changed", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 3}], ids=["none", "later"]
)
@pytest.mark.parametrize("epochs", [{"max_epochs": 2}, {"max_epochs": 3, "max_steps": 4}])
def test_a_validation_that_is_not_wanted_any_more_is_left_out(tmp_path, changed, epochs):
    events = Events()
    save = SaveAlways(tmp_path, events)
    fit([events, save], **epochs)
    batches = [event for event in events.seen if isinstance(event[1], int)]
    for path, done in save.saved:
        again = Events()
        fit([again], path, **epochs, **changed)
        left = [event for event in events.seen[done:] if isinstance(event[1], int)]
        assert again.seen == left == batches[len(batches) - len(left) :], path
