"""A training prints lines, an evaluation counts its batches."""

import logging
import re
from contextlib import contextmanager

import pytest

from hiera_video.callbacks.progress import ProgressLines, listed
from hiera_video.tasks.optimization import warmup_cosine
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer


def task(**kwargs):
    return PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5, **kwargs)


def test_the_first_step_estimates_the_whole(caplog):
    trainer = quick_trainer(max_epochs=3, callbacks=[ProgressLines(every_n_steps=4)])
    with caplog.at_level(logging.INFO):
        trainer.fit(task(lr=1e-3, min_lr=1e-6), datamodule=ColourVideos())
    lines = [line for line in caplog.messages if "step " in line and "/9" in line]
    assert [line.split("step ")[1].split()[0] for line in lines] == ["1/9", "4/9", "8/9"]
    rates = [float(line.split("lr ")[1].split()[0]) for line in lines]
    shape = [warmup_cosine(step, 0, 9, 1e-6 / 1e-3) for step in (0, 3, 7)]
    assert rates == pytest.approx([1e-3 * factor for factor in shape], rel=1e-2)
    assert "left about 0:00:" in lines[0]
    assert "about" not in lines[1]
    assert re.search(r"  [\d.]+ clips/s, 0 % waiting  left", lines[0])
    assert all(re.search(r"  [\d.]+ clips/s, \d+ % waiting  left", line) for line in lines)


def test_evaluations_count_their_batches(capsys):
    videos = ColourVideos(test="10", eval_batch_size=4)
    trainer = quick_trainer(callbacks=[ProgressLines()])
    trainer.validate(task(), datamodule=videos, verbose=False)
    trainer.test(task(), datamodule=videos, verbose=False)
    lines = capsys.readouterr().err.splitlines()
    val, test = (line for line in lines if " batches, " in line)
    assert val.startswith("validate: 2 of 2 batches, ")
    assert test.startswith("test: 3 of 3 batches, ")


def test_a_validation_within_a_training_is_counted(monkeypatch):
    shown = []

    @contextmanager
    def line(name, unit):
        yield lambda done, total: shown.append((name, unit, done, total))

    monkeypatch.setattr("hiera_video.callbacks.progress.progress_line", line)
    trainer = quick_trainer(max_epochs=2, callbacks=[ProgressLines()])
    trainer.fit(task(), datamodule=ColourVideos(val="10", eval_batch_size=4))
    # The numbers of the validation come in the place of a last line.
    assert shown == 2 * [("validate", "batches", done, 3) for done in (1, 2)]


def test_accuracies_are_in_percent():
    numbers = {"val/loss": 0.5, "val/mean_class_accuracy": 1 / 3, "val/top1": 0.25}
    assert listed(numbers) == "val/loss 0.5000  val/mean_class_accuracy 33.33%  val/top1 25.00%"


def test_every_n_steps_below_0_is_refused():
    with pytest.raises(ValueError, match="every_n_steps must be at least 0, not -1"):
        ProgressLines(every_n_steps=-1)


def test_without_an_interval_only_the_first_step_has_a_line(caplog):
    caplog.set_level(logging.INFO)
    trainer = quick_trainer(limit_val_batches=0, callbacks=[ProgressLines(every_n_steps=0)])
    task = PretrainingTask(lambda: tiny_mae(embed_dim=8), mask_ratio=0.5)
    trainer.fit(task, datamodule=ColourVideos())
    assert trainer.global_step == 3
    assert len([line for line in caplog.messages if "clips/s" in line]) == 1
