"""A run always has a whole, finite checkpoint."""

import logging
import resource

import pytest
import torch
from lightning import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.demos.boring_classes import BoringModel

from hiera_video.errors import UsageError
from hiera_video.running.saving import WholeCheckpoints
from tests.quick_trainer import quick_trainer


class CountSteps(Callback):
    """The weight is the number of steps made, or what `values` says after a step."""

    def __init__(self, values=None):
        self.values = values or {}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        step = trainer.global_step
        pl_module.layer.weight.data.fill_(self.values.get(step, step))


class Heavy(BoringModel):
    """A checkpoint of it has 400 KB."""

    def __init__(self):
        super().__init__()
        self.register_buffer("ballast", torch.zeros(100_000))


def fit(folder, steps, *callbacks, model=BoringModel, **kwargs):
    saving = WholeCheckpoints()
    recovery = ModelCheckpoint(
        folder, "last", enable_version_counter=False, every_n_train_steps=1, save_top_k=1
    )
    trainer = quick_trainer(
        max_steps=steps,
        limit_val_batches=0,
        callbacks=[recovery, *callbacks],
        enable_checkpointing=True,
        plugins=[saving],
    )
    trainer.fit(model(), **kwargs)
    return saving


def step_in(path):
    return torch.load(path, weights_only=True)["global_step"]


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_the_checkpoint_before_the_last_stays(tmp_path):
    fit(tmp_path, 1).check_saved()
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    fit(tmp_path, 3, ckpt_path=tmp_path / "last.ckpt", weights_only=True).check_saved()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["last.ckpt", "previous.ckpt"]
    assert (step_in(tmp_path / "previous.ckpt"), step_in(tmp_path / "last.ckpt")) == (2, 3)


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_damaged_last_one_does_not_replace_the_one_before(tmp_path):
    fit(tmp_path, 3)
    (tmp_path / "last.ckpt").write_bytes(b"damaged")
    fit(tmp_path, 3, ckpt_path=tmp_path / "previous.ckpt", weights_only=True)
    assert (step_in(tmp_path / "previous.ckpt"), step_in(tmp_path / "last.ckpt")) == (2, 3)


def test_weights_that_are_not_finite_are_not_saved(tmp_path, caplog):
    saving = fit(tmp_path, 3, CountSteps({3: float("nan")}))
    assert step_in(tmp_path / "last.ckpt") == 2
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert f"not finite; still whole in {tmp_path}: last.ckpt (step 2)" in line
    with pytest.raises(UsageError, match="last.ckpt is not saved: .*not finite") as error:
        saving.check_saved()
    assert error.value.exit_code == 1


def test_training_goes_on_after_a_full_disk(tmp_path, caplog):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class FullAtStep2(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            soft = 50_000 if trainer.global_step == 2 else limits[0]
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, limits[1]))

    try:
        saving = fit(tmp_path, 3, FullAtStep2(), model=Heavy)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    saving.check_saved()  # the last one succeeded
    assert step_in(tmp_path / "last.ckpt") == 3
    (line,) = [r.getMessage() for r in caplog.records if r.levelno == logging.ERROR]
    assert f"{tmp_path}/last.ckpt is not saved: File too large; still whole" in line
    assert f"in {tmp_path}: last.ckpt (step 1)" in line
    assert not list(tmp_path.glob(".*"))
