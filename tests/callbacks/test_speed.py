"""Speed, waiting and memory are logged with the losses, and ranks that differ are named."""

import csv
import logging
import math
import time
from functools import partial

import pytest
from torch import distributed, nn

from hiera_video.callbacks import speed
from hiera_video.callbacks.logged_steps import LogLastStep
from hiera_video.callbacks.metrics_file import MetricsFile
from hiera_video.callbacks.speed import Speed, unequal_ranks
from hiera_video.callbacks.stopwatch import Lap
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.tasks.pretraining import PretrainingTask
from tests.callbacks.test_stopwatch import SlowTask, SlowVideos
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae, tiny_model
from tests.quick_trainer import Points, quick_trainer


def fit(folder, task=None, data=None, callback=None, **settings):
    """The logged points of a training."""
    logger = Points(folder)
    settings = {"limit_val_batches": 0, "log_every_n_steps": 2, **settings}
    trainer = quick_trainer(logger=logger, callbacks=[callback or Speed()], **settings)
    trainer.fit(task or SlowTask(), datamodule=data or ColourVideos(train="8", batch_size=2))
    return logger


def test_numbers_are_logged_with_the_loss(tmp_path):
    data = SlowVideos(0.1, train="14", batch_size=2, bad=("/14/3.mp4",), max_bad_share=0.1)
    points = fit(tmp_path, SlowTask(0.1), data, max_epochs=2, log_every_n_steps=3)
    rates, waits = (
        points.curve(f"speed/{name}") for name in ("clips_per_second", "waits_for_data")
    )
    assert list(rates) == list(waits) == list(points.curve("train/loss")) == [2, 5, 8, 11]
    for rate, share in zip(rates.values(), waits.values(), strict=True):
        assert 2 / 1.2 < rate < 2 / 0.3
        assert 0.2 < share < 0.75
    shares = points.curve("train/bad_share")
    # One video of 14 is bad, and is met once an epoch, in an interval of two or three steps.
    assert {round(1 / share, 3) for share in shares.values() if share} <= {5, 7}
    assert len([share for share in shares.values() if share]) in (1, 2)
    names = {name for name, *_ in points.points if "/" in name}
    assert names == {
        "speed/clips_per_second",
        "speed/waits_for_data",
        "train/bad_share",
        "train/bad_videos",
        "train/grad_norm",
        "train/loss",
    }


def test_the_first_step_counts_only_if_it_is_logged(tmp_path):
    class SlowStart(SlowTask):
        def training_step(self, batch, batch_idx):
            time.sleep(0 if self.trainer.global_step else 2)
            return super().training_step(batch, batch_idx)

    for interval, first_counts in ((1, True), (2, False)):
        points = fit(tmp_path, SlowStart(), log_every_n_steps=interval)
        first, *_ = points.curve("speed/clips_per_second").values()
        assert (first < 1) == first_counts


def test_the_share_of_the_peak(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "device_peak", lambda device, precision: 1e9)
    task = PretrainingTask(partial(tiny_mae, embed_dim=8), mask_ratio=0.5)
    points = fit(tmp_path, task)
    flops = task.training_flops((3, 4, 64, 64))
    rates, shares = (points.curve(f"speed/{name}") for name in ("clips_per_second", "mfu"))
    assert rates
    assert shares == {step: pytest.approx(rate * flops / 1e9) for step, rate in rates.items()}


def test_no_share_of_the_peak_where_operations_cannot_be_counted(tmp_path, monkeypatch, caplog):
    class Reading(nn.Module):
        """Reads values of its input, which has none without memory."""

        def __init__(self, num_classes):
            super().__init__()
            self.head = nn.Linear(3, num_classes)

        def forward(self, video):
            mean = video.mean(dim=(2, 3, 4))  # (B, 3)
            return self.head(mean * 2 if mean.max().item() > 0 else mean)

    monkeypatch.setattr(speed, "device_peak", lambda device, precision: 1e9)
    with caplog.at_level(logging.INFO):
        points = fit(tmp_path, ClassificationTask(Reading))
    assert points.curve("speed/clips_per_second")
    assert not points.curve("speed/mfu")
    assert caplog.text.count("speed/mfu is not logged") == 1


def test_ranks_that_differ():
    laps = [Lap(4, 40, 0, 10.0, 0.1) for _ in range(4)]
    assert unequal_ranks(laps) == []
    laps[2] = Lap(4, 40, 0, 10.0, 1.1)  # 11 % waiting, the mean is 3.5 %
    assert unequal_ranks(laps) == []
    laps[2] = Lap(4, 40, 0, 10.0, 2.1)  # 21 %, the mean is 6 %
    assert unequal_ranks(laps) == [2]
    laps[3] = Lap(4, 30, 0, 10.0, 0.1)
    assert unequal_ranks(laps) == [2, 3]
    unknown = [Lap(4, clips, 0, 10.0, math.nan) for clips in (40, 40, 40, 30)]
    assert unequal_ranks(unknown) == [3]
    assert laps[2].text() == "4.0 clips/s, 21 % waiting"
    assert unknown[3].text(2) == "6.0 clips/s"
    assert unequal_ranks(laps[:1]) == []


class SlowOnOneRank(SlowVideos):
    """Only the second rank takes time to read."""

    def training_clips(self, manifest):
        self.seconds *= distributed.get_rank()
        return super().training_clips(manifest)


@pytest.mark.parametrize(
    ("interval", "steps", "lines"),
    [(3, [3, 6, 9, 12], [6]), (1, [*range(1, 13)], [2, 12])],  # again ten logs later
)
def test_a_slow_rank_is_named_and_ranks_meet_only_when_numbers_are_logged(
    tmp_path, monkeypatch, interval, steps, lines
):
    def noted(text):  # in a file, for all processes
        with open(tmp_path / "noted", "a") as file:
            file.write(f"{text}\n")

    def counted(*args, gather=distributed.all_gather, **kwargs):
        noted("gathered")
        return gather(*args, **kwargs)

    monkeypatch.setattr(distributed, "all_gather", counted)
    monkeypatch.setattr(speed.log, "warning", noted)
    path = tmp_path / "metrics.csv"
    trainer = quick_trainer(
        devices=2,
        strategy="ddp_fork",
        limit_val_batches=0,
        log_every_n_steps=interval,
        logger=MetricsFile(path),
        callbacks=[LogLastStep(), Speed()],
    )
    trainer.fit(SlowTask(), datamodule=SlowOnOneRank(0.4, train="24", batch_size=1))
    with open(path, newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speed/clips_per_second"]]
    assert [int(row["step"]) + 1 for row in rows] == steps
    for row in rows[interval == 1 :]:  # nobody waits for the first batch
        first, second = (float(row[f"speed/rank_{rank}/waits_for_data"]) for rank in (0, 1))
        assert first < 0.1
        assert 0.4 < second < 1
        assert float(row["speed/waits_for_data"]) == pytest.approx((first + second) / 2)
        rates = [float(row[f"speed/rank_{rank}/clips_per_second"]) for rank in (0, 1)]
        assert float(row["speed/clips_per_second"]) == pytest.approx(sum(rates))
    events = (tmp_path / "noted").read_text().splitlines()
    assert events.count("gathered") == 2 * len(rows)
    texts = [event for event in events if event != "gathered"]
    assert [int(text.split()[1].rstrip(":")) for text in texts] == lines
    for text in texts:
        assert ": the 2 ranks are unequal: rank 0: " in text
        assert "% waiting; rank 1: " in text


@pytest.mark.gpu
def test_memory_and_the_share_of_the_peak_on_a_gpu(tmp_path):
    task = ClassificationTask(partial(tiny_model, embed_dim=8))
    points = fit(tmp_path, task, accelerator="gpu", precision="bf16-mixed")
    memory = points.curve("memory/peak_gib")
    assert list(memory) == list(points.curve("train/loss"))
    assert all(0 < value < 10 for value in memory.values())
    assert all(0 < value < 1 for value in points.curve("speed/mfu").values())
