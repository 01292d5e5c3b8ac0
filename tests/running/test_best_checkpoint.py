import errno
import os
import shutil
import warnings

import pytest
import torch
from lightning import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from hiera_video.running import saving
from hiera_video.running.best_checkpoint import KeepBest
from tests.quick_trainer import quick_trainer


class Scored(LightningModule):
    """Has a given score in each validation."""

    def __init__(self, *scores):
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.scores = list(scores)

    def training_step(self, batch, batch_idx):
        return self.layer(batch).sum()

    def validation_step(self, batch, batch_idx):
        self.log("val/top1", self.scores.pop(0))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


class Last(Callback):
    """Saves before the validation of its epoch is judged, as a killed run may have."""

    def __init__(self, folder):
        self.folder = folder

    def on_validation_start(self, trainer, pl_module):
        trainer.save_checkpoint(self.folder / "last.ckpt")


class NoRoom(Callback):
    """Nothing can be saved after the validation of some epoch."""

    def __init__(self, epoch, patch):
        self.epoch, self.patch = epoch, patch

    def on_validation_epoch_end(self, trainer, pl_module):
        def write(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if trainer.current_epoch == self.epoch:
            self.patch.setattr(saving, "write_checkpoint", write)

    def on_train_epoch_start(self, trainer, pl_module):
        self.patch.undo()


def fit(folder, *scores, resume=None, name="best", callbacks=(), **kwargs):
    """Train for as many epochs more as there are scores; returns the checkpoint callback."""
    best = ModelCheckpoint(
        folder, name, monitor="val/top1", mode="max", enable_version_counter=False, **kwargs
    )
    done = torch.load(resume, weights_only=True)["epoch"] + 1 if resume else 0
    trainer = quick_trainer(
        max_epochs=done + len(scores),
        callbacks=[KeepBest(), best, Last(folder), *callbacks],
        enable_checkpointing=True,
        plugins=[saving.WholeCheckpoints()],
    )
    numbers = [DataLoader(torch.ones(2, 1)), DataLoader(torch.ones(1, 1))]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.fit(Scored(*scores), *numbers, ckpt_path=resume, weights_only=True)
    return best


def step(folder):
    return torch.load(folder / "best.ckpt", weights_only=True)["global_step"]


@pytest.mark.parametrize("moves", [False, True])
def test_only_a_better_one_replaces_the_best(tmp_path, moves, caplog):
    caplog.set_level("INFO")
    folder = tmp_path / "run"
    fit(folder, 0.5, 0.9)
    assert step(folder) == 4
    assert torch.load(folder / "last.ckpt", weights_only=True)["global_step"] == 4
    if moves:
        folder = folder.rename(tmp_path / "moved")
    best = fit(folder, 0.3, 0.6, resume=folder / "last.ckpt")
    assert step(folder) == 4
    assert best.best_model_score.item() == pytest.approx(0.9)
    assert best.best_model_path == str(folder / "best.ckpt")
    assert "best.ckpt (step 4) has val/top1 90.00%; only better replaces it" in caplog.text
    best = fit(folder, 0.95, resume=folder / "last.ckpt")
    assert step(folder) > 4
    assert best.best_model_score.item() == pytest.approx(0.95)


def test_a_damaged_one_is_replaced(tmp_path, caplog):
    fit(tmp_path, 0.9)
    (tmp_path / "best.ckpt").write_bytes(b"no checkpoint")
    fit(tmp_path, 0.3, resume=tmp_path / "last.ckpt")
    assert step(tmp_path) == 4
    assert "best.ckpt" in caplog.text
    assert "the next validation replaces it" in caplog.text


@pytest.mark.parametrize(
    ("scores", "full_in", "last"),
    [((0.3, 0.9, 0.6), 1, 0.6), ((0.3, 0.9, 0.2), 1, 0.3), ((0.9, 0.5), 0, 0.5)],
)
def test_the_score_is_that_of_the_file_after_a_full_disk(
    tmp_path, scores, full_in, last, monkeypatch
):
    best = fit(tmp_path, *scores, callbacks=[NoRoom(full_in, monkeypatch)])
    assert best.best_model_score.item() == pytest.approx(last)
    assert step(tmp_path) == 2 * (scores.index(last) + 1)


def test_the_scores_are_those_of_several_files_after_a_full_disk(tmp_path, monkeypatch):
    no_room = NoRoom(2, monkeypatch)
    best = fit(*(tmp_path, 0.3, 0.4, 0.9, 0.2), name="{epoch}", callbacks=[no_room], save_top_k=2)
    scores = {os.path.basename(path): float(s) for path, s in best.best_k_models.items()}
    assert scores == pytest.approx({"epoch=1.ckpt": 0.4, "epoch=3.ckpt": 0.2})
    assert best.best_model_path.endswith("epoch=1.ckpt")
    assert sorted(p.name for p in tmp_path.glob("epoch*")) == ["epoch=1.ckpt", "epoch=3.ckpt"]


@pytest.mark.parametrize("damages", [False, True])
def test_without_the_file_the_next_validation_is_the_best(tmp_path, damages):
    fit(tmp_path, 0.9, 0.1)  # the checkpoint knows 0.9
    (tmp_path / "best.ckpt").unlink()
    if damages:
        (tmp_path / "best.ckpt").write_bytes(b"no checkpoint")
    fit(tmp_path, 0.3, resume=tmp_path / "last.ckpt")
    assert step(tmp_path) == 6


def test_another_training_that_starts_from_its_weights_has_no_best(tmp_path):
    fit(tmp_path / "first", 0.9)
    shutil.copytree(tmp_path / "first", tmp_path / "second")
    best = fit(tmp_path / "second", 0.3)  # not resumed
    assert best.best_model_score.item() == pytest.approx(0.3)
