import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hiera_video.callbacks.probe import Probe
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer


def fit(callbacks=(), data=None, epochs=2, **trainer):
    """Weights, metrics and task after a short training."""
    torch.manual_seed(0)
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8, drop_path_rate=0.5), mask_ratio=0.5)
    trainer = quick_trainer(max_epochs=epochs, callbacks=list(callbacks), **trainer)
    trainer.fit(task, datamodule=data or ColourVideos())
    return task.model.state_dict(), trainer.callback_metrics, task


def test_it_logs_both_probes_and_training_does_not_notice():
    data = ColourVideos()
    weights, metrics, task = fit([Probe(2, max_videos=9, k=3)], data)
    plain, without, _ = fit([Probe(None)])
    assert data.loaded[-1] == 9
    few = data.evaluation_loader("train", 4).dataset.manifest
    assert [few.path(i) for i in range(4)] == [f"/12/{i}.mp4" for i in (0, 3, 6, 9)]
    assert metrics["val/linear_top1"] == 1  # colours are easy
    assert metrics["val/knn_top1"] == 1
    assert metrics["val/loss"] == without["val/loss"]
    assert "val/knn_top1" not in without
    assert task.model.training
    assert all(torch.equal(value, plain[key]) for key, value in weights.items())


def test_it_is_due_every_n_epochs_alone():
    _, metrics, _ = fit([Probe(2)], epochs=1)
    assert "val/knn_top1" not in metrics


def test_an_epoch_without_a_validation_cannot_be_probed():
    with pytest.raises(MisconfigurationException, match="trainer.check_val_every_n_epoch=3"):
        fit([Probe(3)], epochs=6, check_val_every_n_epoch=2)
    _, metrics, _ = fit([Probe(4)], epochs=4, check_val_every_n_epoch=2)
    assert "val/knn_top1" in metrics


def test_under_autocast_and_with_videos_that_cannot_be_decoded():
    data = ColourVideos(bad=("/6/1.mp4", "/12/0.mp4"), val_views=(2, 1), max_bad_share=0.5)
    _, metrics, task = fit([Probe(1, k=3)], data, epochs=1, precision="bf16-mixed")
    assert metrics["val/linear_top1"] == pytest.approx(5 / 6)
    assert task.model.patch_embed.proj.weight.dtype == torch.float32


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": "12 unlabelled"}, "data.train has no labels"),
        ({"train": "1"}, "data.train has one class"),
        ({"val": "6 unlabelled"}, "data.val has no labels"),
        ({"val": None}, "data.val, which is null"),
    ],
)
def test_data_that_cannot_be_probed(splits, message):
    with pytest.raises(MisconfigurationException, match=message):
        fit([Probe(1)], ColourVideos(**splits))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="every_n_epochs must be at least 1 or null, not 0"):
        Probe(0)
    with pytest.raises(ValueError, match="max_videos must be at least 2 or null, not 1"):
        Probe(1, max_videos=1)
    with pytest.raises(ValueError, match="k must be"):
        Probe(1, k=0)
