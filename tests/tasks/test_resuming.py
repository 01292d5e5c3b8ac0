"""A resumed training is what its configuration says; what is logged is what happened."""

import csv
import logging
from functools import partial

import pytest
import torch
from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch.optim import AdamW

from hiera_video.callbacks.metrics_file import MetricsFile
from hiera_video.callbacks.progress import ProgressLines
from hiera_video.callbacks.recovery import ContinueEpoch
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer

small_mae = partial(tiny_mae, embed_dim=8)


def task(**kwargs):
    settings = {"lr": 1e-3, "weight_decay": 0.1, "min_lr": 1e-5, "mask_ratio": 0.5}
    return PretrainingTask(small_mae, **{**settings, **kwargs})


def fit(task, epochs, path=None, batch_size=2, **kwargs):
    trainer = quick_trainer(max_epochs=epochs, limit_val_batches=0, **kwargs)
    data = ColourVideos(train="8", batch_size=batch_size)
    trainer.fit(task, datamodule=data, ckpt_path=path, weights_only=True)
    return trainer


class Rates(ContinueEpoch):
    """Keeps the rate of each step."""

    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_start(self, trainer, *args):
        self.rates.append(trainer.optimizers[0].param_groups[-1]["lr"])


@pytest.fixture
def two_epochs(tmp_path):
    trainer = fit(task(), 2)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


@pytest.mark.parametrize(
    "changed",
    [{"lr": 2e-3}, {"min_lr": 5e-4}, {"warmup_epochs": 3}, {"optimizer": partial(AdamW, eps=1e-5)}],
)
def test_changed_settings_hold_from_the_next_step_on(two_epochs, changed):
    rest, whole = Rates(), Rates()
    resumed = fit(task(**changed, weight_decay=0.2), 4, two_epochs, callbacks=[rest])
    new = fit(task(**changed, weight_decay=0.2), 4, callbacks=[whole])
    assert rest.rates == whole.rates[8:]
    groups = [trainer.optimizers[0].param_groups for trainer in (resumed, new)]
    for mine, other in zip(*groups, strict=True):
        for settings in (mine, other):
            settings.pop("params")
        assert mine == other
    assert {group["weight_decay"] for group in groups[0]} == {0.0, 0.2}


@pytest.mark.parametrize("batch_size", [1, 4, 8])
def test_with_another_batch_a_run_is_at_the_same_place_of_its_schedule(
    two_epochs, batch_size, caplog
):
    resumed, new = Rates(), Rates()
    with caplog.at_level(logging.INFO):
        callbacks = [resumed, ProgressLines(every_n_steps=1)]
        trainer = fit(task(warmup_epochs=1), 4, two_epochs, batch_size, callbacks=callbacks)
    steps = 8 + len(resumed.rates)
    assert f"  step {steps}/{steps}  " in caplog.text
    assert f"  step 9/{steps}  " in caplog.text
    fit(task(warmup_epochs=1), 4, None, batch_size, callbacks=[new])
    assert resumed.rates == new.rates[len(new.rates) // 2 :]
    trainer.save_checkpoint(two_epochs.with_name("next.ckpt"))
    again = Rates()  # from where other steps were converted before
    fit(task(warmup_epochs=1), 6, two_epochs.with_name("next.ckpt"), 2, callbacks=[again])
    whole = Rates()
    fit(task(warmup_epochs=1), 6, callbacks=[whole])
    assert again.rates == whole.rates[16:]


def test_steps_of_a_training_that_ends_after_a_number_of_them_are_steps(tmp_path):
    trainer = fit(task(), -1, max_steps=8)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    resumed, new = Rates(), Rates()
    fit(task(), -1, tmp_path / "last.ckpt", 4, max_steps=12, callbacks=[resumed])
    fit(task(), -1, None, 4, max_steps=12, callbacks=[new])
    assert resumed.rates == new.rates[8:]


def test_the_optimisers_state_is_kept(two_epochs):
    state = torch.load(two_epochs, weights_only=True)["optimizer_states"][0]["state"]
    resumed = fit(task(lr=2e-3), 3, two_epochs)
    steps = {float(s["step"]) for s in resumed.optimizers[0].state_dict()["state"].values()}
    assert ({float(s["step"]) for s in state.values()}, steps) == ({8.0}, {12.0})


def test_other_groups_of_parameters_are_refused(two_epochs):
    with pytest.raises(MisconfigurationException, match=r"keep task\.layer_decay"):
        fit(task(layer_decay=0.5), 3, two_epochs)


class SaveAndStop(Callback):
    """Save after some step, and stop as a kill would."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)
            raise KeyError("stopped")


@pytest.mark.parametrize("stops", [(4, 6), (3, 4, 5, 7), (1, 8, 9, 12, 14)])
def test_a_run_that_is_stopped_again_and_again_has_all_its_steps(tmp_path, stops):
    """Each epoch has four; Lightning alone loses count after a stop at the last one."""
    seen, validated, path = [], [], None

    class Record(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            seen.append((trainer.current_epoch, batch_idx, *batch["video_id"].tolist()))

        def on_validation_end(self, trainer, pl_module):
            validated.append(trainer.current_epoch)

    def go_on(*callbacks):
        trainer = quick_trainer(max_epochs=4, callbacks=[ContinueEpoch(), Record(), *callbacks])
        data = ColourVideos(train="8", batch_size=2)
        trainer.fit(task(), datamodule=data, ckpt_path=path, weights_only=True)
        return trainer

    for stop in stops:
        with pytest.raises(KeyError, match="stopped"):
            go_on(SaveAndStop(stop, tmp_path / "last.ckpt"))
        path = tmp_path / "last.ckpt"
    assert go_on().global_step == 16
    parts, seen[:] = seen[:], []
    epochs, validated[:], path = validated[:], [], None
    go_on()
    assert parts == seen
    assert epochs == validated


def test_means_are_of_all_batches_of_a_step_on_all_ranks(tmp_path):
    class Numbers(PretrainingTask):
        """Logs the batch's number, and on the second rank 100 more."""

        def training_step(self, batch, batch_idx):
            self.log_mean("train/number", torch.tensor(batch_idx + 100.0 * self.global_rank))
            return super().training_step(batch, batch_idx)

    path = tmp_path / "metrics.csv"
    trainer = quick_trainer(
        limit_val_batches=0,
        accumulate_grad_batches=2,
        devices=2,
        strategy="ddp_fork",
        log_every_n_steps=2,
        logger=MetricsFile(path),
    )
    trainer.fit(Numbers(small_mae, mask_ratio=0.5), datamodule=ColourVideos("16", batch_size=1))
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["train/number"]]
    # Steps of batches 2 and 3, 6 and 7.
    assert [(row["step"], row["train/number"]) for row in rows] == [("1", "52.5"), ("3", "56.5")]


def test_a_training_may_have_a_number_of_steps_and_none_of_epochs():
    trainer = fit(task(), -1, max_steps=6)  # of 4 steps an epoch
    assert trainer.global_step == 6
    (group, *_) = trainer.optimizers[0].param_groups
    assert group["lr"] < 2e-4  # 1e-3 at its height: the schedule ends with the last step
