"""A step whose loss or gradient is not finite changes nothing, is counted, and ends some runs."""

import copy
import json
from functools import partial

import pytest
import torch
from lightning import Callback
from lightning.pytorch.plugins import MixedPrecision
from torch.optim import SGD, AdamW

from hiera_video.callbacks.not_finite import StopIfNotFinite
from hiera_video.errors import UsageError
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer

OPTIMIZERS = {
    "AdamW": AdamW,
    "fused AdamW": partial(AdamW, fused=True),
    "SGD": partial(SGD, momentum=0.9),
    "fused SGD": partial(SGD, momentum=0.9, fused=True),
}


class Diverging(PretrainingTask):
    """Some batches have a loss that is infinite, without a gradient, or a gradient that is NaN or
    has an infinite norm.

    Args:
        losses: batches, counted from 0, with that loss.
        gradients: batches with a gradient that is NaN.
        overflows: batches with a gradient whose norm is infinite.
    """

    def __init__(self, losses=(), gradients=(), overflows=(), **kwargs):
        super().__init__(partial(tiny_mae, embed_dim=8), mask_ratio=0.5, lr=1e-2, **kwargs)
        self.losses, self.gradients, self.overflows = losses, gradients, overflows

    def training_step(self, batch, batch_idx):
        loss = super().training_step(batch, batch_idx)
        if batch_idx in self.losses:
            loss = loss + float("inf")
        if batch_idx in self.overflows:
            loss = loss + 3e38 * self.model.patch_embed.proj.bias[0]
        return loss * float("nan") if batch_idx in self.gradients else loss


class Snapshots(Callback):
    """Weights and the optimiser's state after each step."""

    def __init__(self):
        self.taken = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        (optimizer,) = trainer.optimizers
        state = [pl_module.state_dict(), list(optimizer.state_dict()["state"].values())]
        self.taken.append(copy.deepcopy(state))


def fit(task, *callbacks, data=None, **kwargs):
    trainer = quick_trainer(
        limit_val_batches=0, gradient_clip_val=1.0, callbacks=list(callbacks), **kwargs
    )
    trainer.fit(task, datamodule=data or ColourVideos(train="12", batch_size=2))
    return trainer


def scaled(scale):
    """Plugins of training on a CPU under ``16-mixed``, from a factor on; none if it is None."""
    return scale and [MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", scale))]


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("optimizer", OPTIMIZERS.values(), ids=OPTIMIZERS)
@pytest.mark.parametrize("kind", ["losses", "gradients", "overflows"])
@pytest.mark.parametrize("scale", [None, 1024.0], ids=["unscaled", "scaled"])
def test_a_step_that_is_not_finite_changes_nothing(optimizer, kind, scale):
    snapshots, counter = Snapshots(), StopIfNotFinite("/nowhere")
    task = Diverging(**{kind: (0, 3)}, optimizer=optimizer)
    fit(task, snapshots, counter, plugins=scaled(scale))
    start, *_ = snapshots.taken
    assert not start[1]  # the first step was skipped, too: there is no state yet
    _, one, two, three, four, _ = snapshots.taken
    assert not same(one[0], two[0])
    assert same(two, three)
    assert not same(three[0], four[0])
    assert counter.skipped == 2
    assert all(value.isfinite().all() for value in four[0].values())


# With a smaller eps, AdamW makes large steps of gradients that are noise, those of the keys' bias.
@pytest.mark.parametrize("optimizer", [partial(AdamW, eps=1e-2), partial(SGD, momentum=0.9)])
def test_a_fused_optimiser_makes_the_same_steps_of_scaled_gradients(optimizer):
    """Norm, weights and scale are those without its fused form, and the norm is not scaled."""
    ends, norms = [], []
    for fused, scale in ((False, 1024.0), (True, 1024.0), (True, 64.0)):
        snapshots, (precision,) = Snapshots(), scaled(scale)
        task = Diverging(losses=(3,), optimizer=partial(optimizer, fused=fused))
        torch.manual_seed(0)
        trainer = fit(task, snapshots, plugins=[precision], log_every_n_steps=1)
        ends.append(snapshots.taken[-1][0])
        norms.append(trainer.callback_metrics["train/grad_norm"])
        assert precision.scaler.get_scale() == scale / 2
    for norm in norms[1:]:
        torch.testing.assert_close(norm, norms[0], rtol=1e-2, atol=0)
    torch.testing.assert_close(ends[1], ends[0], rtol=1e-5, atol=1e-6)


def test_a_skipped_step_makes_the_others_no_different():
    """Steps after it are those of a training without it."""
    with_it, without = Snapshots(), Snapshots()
    fit(Diverging(losses=(2,)), with_it)

    class Leaves(Diverging):
        def optimizer_step(self, epoch, batch_idx, optimizer, closure):
            closure() if batch_idx == 2 else optimizer.step(closure)

    fit(Leaves(), without)
    assert same(with_it.taken[-1], without.taken[-1])


def test_all_batches_of_a_step_are_skipped():
    snapshots, counter = Snapshots(), StopIfNotFinite("/nowhere")
    fit(Diverging(losses=(2,)), snapshots, counter, accumulate_grad_batches=2)
    assert same(snapshots.taken[1], snapshots.taken[3])
    assert not same(snapshots.taken[3], snapshots.taken[5])
    assert counter.skipped == 1


@pytest.mark.parametrize("interval", [1, 4, 50])
def test_too_many_in_a_row_stop_the_run(tmp_path, interval):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints/last.ckpt").touch()
    data = ColourVideos(train="12", batch_size=2)
    task, stop = Diverging(losses=(0, 2, 3, 4)), StopIfNotFinite(tmp_path, limit=3)
    with pytest.raises(UsageError, match="3 steps in a row, up to step 5") as error:
        fit(task, stop, data=data, log_every_n_steps=interval)
    assert error.value.exit_code == 1
    assert str(error.value).endswith(f"checkpoint is {tmp_path}/checkpoints/last.ckpt")
    steps = json.loads((tmp_path / "not_finite.json").read_text())
    assert [(step["step"], step["rank"]) for step in steps] == [(3, 0), (4, 0), (5, 0)]
    assert all(len(step["video"]) == len(step["seed"]) == 2 for step in steps)
    assert all(video.startswith("/12/") for step in steps for video in step["video"])


def test_fewer_in_a_row_do_not(tmp_path, caplog):
    counter = StopIfNotFinite(tmp_path, limit=3)
    fit(Diverging(losses=(0, 1, 3, 4)), counter, max_epochs=2)
    assert counter.skipped == 8
    warnings = [r.getMessage() for r in caplog.records if r.name.endswith("not_finite")]
    assert [line.rpartition("; ")[2] for line in warnings] == ["4 in all", "8 in all"]


def test_all_ranks_skip_and_stop_together(tmp_path):
    """The loss of one of them is infinite; one file has the batches of both."""

    class OnOneRank(Diverging):
        def training_step(self, batch, batch_idx):
            self.losses = range(6) if self.global_rank == 1 else ()
            return super().training_step(batch, batch_idx)

    stop = StopIfNotFinite(tmp_path, limit=2)
    with pytest.raises(Exception, match="2 steps in a row, up to step 2"):
        fit(OnOneRank(), stop, devices=2, strategy="ddp_fork", log_every_n_steps=1)
    steps = json.loads((tmp_path / "not_finite.json").read_text())
    assert [(step["step"], step["rank"]) for step in steps] == [(1, 0), (1, 1), (2, 0), (2, 1)]


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_positive(limit):
    with pytest.raises(ValueError, match="at least 1 or null"):
        StopIfNotFinite("/nowhere", limit)
