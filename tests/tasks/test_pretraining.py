import math
from functools import partial

import pytest
import torch

from hiera_video.augment.basic import MASK_STREAM
from hiera_video.augment.random import uniform
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.reference import make_video
from tests.models.small import tiny_mae
from tests.quick_trainer import _quiet_lightning, quick_trainer  # noqa: F401


def task(**kwargs):
    task = PretrainingTask(tiny_mae, mask_ratio=0.5, **kwargs)
    task.model = task.network()
    return task


def test_the_default_mask_keeps_the_units_with_the_least_noise():
    seed, pretraining = torch.tensor([3, 2**50]), task()
    out = pretraining(make_video(pretraining.model, 2), seed)
    noise = uniform(seed, 8, MASK_STREAM)
    assert torch.equal(out.mask, noise <= noise.sort(dim=1).values[:, 3:4])


def test_masks_by_name():
    seed, pretraining = torch.tensor([3, 4]), task(mask="tube")
    video = make_video(pretraining.model, 2)
    tube = pretraining(video, seed).mask.view(2, 2, 4)
    assert torch.equal(tube[:, 0], tube[:, 1])
    pretraining.mask = "block"
    assert pretraining(video, seed).mask.sum(dim=1).tolist() == [4, 4]
    with pytest.raises(ValueError, match="mask must be one of random, tube, block, not 'cube'"):
        task(mask="cube")


@pytest.mark.parametrize(("ratio", "of"), [(0.5, 2), (0.75, 4)])
def test_training_decodes_a_part_of_what_is_hidden(ratio, of):
    seed, pretraining = torch.tensor([3, 2**50]), task(decoder_mask_ratio=ratio)
    video = make_video(pretraining.model, 2)
    everything = pretraining.eval()(video, seed)
    part = pretraining.train()(video, seed)
    assert torch.equal(part.mask, everything.mask)
    cells = part.predicted.view(2, 2, 2, 2, 2, 2).transpose(3, 4)  # (B, T, rows, columns, 2, 2)
    hidden = everything.predicted.view(2, 2, 2, 2, 2, 2).transpose(3, 4)
    assert torch.equal(cells.sum(dim=(4, 5)) * of, hidden.sum(dim=(4, 5)))
    assert torch.equal(pretraining(video, seed).prediction, part.prediction)
    with pytest.raises(ValueError, match=r"decoder_mask_ratio must be in \[0, 1\), not 1"):
        task(decoder_mask_ratio=1)


@pytest.mark.parametrize("precision", ["32-true", "bf16-true"])
def test_the_mean_loss_counts_all_videos(precision):
    """In bfloat16, a sum of ones ends at 256."""

    class OneMore(PretrainingTask):
        def forward(self, video, seed):
            out = super().forward(video, seed)
            return out._replace(loss=out.loss * 0 + 1 + (seed.sum() % 2))

    task = OneMore(partial(tiny_mae, embed_dim=8), mask_ratio=0.5)
    data = ColourVideos(val="601")  # in batches of four; the last one has a quarter of the weight
    (numbers,) = quick_trainer(precision=precision).validate(task, datamodule=data, verbose=False)
    odd = [len(b["seed"]) * int(b["seed"].sum() % 2) for b in data.val_dataloader()]
    assert numbers["val/loss"] == pytest.approx(1 + sum(odd) / 601, abs=1e-6)


def test_a_loss_that_is_not_finite_is_not_left_out():
    class Failing(PretrainingTask):
        def forward(self, video, seed):
            out = super().forward(video, seed)
            return out._replace(loss=out.loss * torch.where(seed.min() % 2 == 0, math.nan, 1.0))

    task = Failing(partial(tiny_mae, embed_dim=8), mask_ratio=0.5)
    data = ColourVideos(val="40")
    (numbers,) = quick_trainer().validate(task, datamodule=data, verbose=False)
    assert math.isnan(numbers["val/loss"])
