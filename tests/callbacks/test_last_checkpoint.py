"""A training ends with a checkpoint, whatever the interval between them."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hiera_video.callbacks import ContinueEpoch, LastCheckpoint
from hiera_video.tasks.lightning_private import Position, position_of
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer


def train(folder, epochs, every=2, resumed=None, save_weights_only=False, **kwargs):
    last = LastCheckpoint(
        folder,
        filename="last",
        every_n_epochs=every,
        enable_version_counter=False,
        save_weights_only=save_weights_only,
    )
    trainer = quick_trainer(
        max_epochs=epochs,
        enable_checkpointing=True,
        callbacks=[last, ContinueEpoch()],
        default_root_dir=folder,
        **kwargs,
    )
    torch.manual_seed(0)
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    trainer.fit(task, datamodule=ColourVideos(train="8"), ckpt_path=resumed)
    return torch.load(folder / "last.ckpt", weights_only=True)


def test_weights_alone_are_refused(tmp_path):
    with pytest.raises(MisconfigurationException, match="no run can be resumed from weights"):
        train(tmp_path, 1, save_weights_only=True)


@pytest.mark.parametrize(
    ("epochs", "every", "limits"),
    [
        (3, 2, {}),
        (1, 100, {}),
        (2, 2, {}),
        (3, 2, {"limit_val_batches": 0}),
        (3, 2, {"max_steps": 5}),
    ],
)
def test_the_end_is_saved(tmp_path, epochs, every, limits):
    checkpoint = train(tmp_path, epochs, every, **limits)
    steps = limits.get("max_steps", 2 * epochs)
    assert position_of(checkpoint) == Position(steps // 2, steps % 2, steps)


def test_a_training_goes_on_from_there(tmp_path):
    train(tmp_path / "three", 3)
    resumed = train(tmp_path / "resumed", 4, resumed=tmp_path / "three/last.ckpt")
    unbroken = train(tmp_path / "unbroken", 4, every=1)
    assert position_of(resumed) == position_of(unbroken) == Position(4, 0, 8)


def test_a_dry_run_saves_nothing(tmp_path):
    with pytest.raises(FileNotFoundError):
        train(tmp_path, 1, fast_dev_run=True)
