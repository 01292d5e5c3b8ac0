from types import SimpleNamespace
from typing import Any

import pytest
from omegaconf import OmegaConf

from hiera_video.running.scores import score_of
from hiera_video.running.sweeps import Score

ACCURACY = {"val/loss": 2.0, "val/top1": 0.5}


@pytest.mark.parametrize(
    ("command", "task", "logged", "score"),
    [
        ("fit", {}, ACCURACY, Score("val/top1", "max", 0.5)),
        ("test", {}, {"test/top1": 0.25}, Score("test/top1", "max", 0.25)),
        ("fit", {"protocol": "ava"}, {"val/mAP_ava": 0.1}, Score("val/mAP_ava", "max", 0.1)),
        ("fit", {}, {"val/mask_AP": 0.2}, Score("val/mask_AP", "max", 0.2)),
        ("fit", {}, {"val/loss": 2.0}, None),
        ("fit", {}, {}, None),
    ],
)
def test_without_a_best_checkpoint_the_usual_metric_counts(command, task, logged, score):
    trainer: Any = SimpleNamespace(
        callback_metrics=logged, checkpoint_callbacks=[], is_global_zero=True
    )
    values = {"command": command, "optimized_metric": None, "task": task}
    config = OmegaConf.create({**values, "callbacks": {"best": None, "speed": {"_target_": "x"}}})
    assert score_of(trainer, config) == score


def test_another_metric_is_not_taken_for_the_one_that_is_monitored():
    trainer: Any = SimpleNamespace(callback_metrics=ACCURACY, checkpoint_callbacks=[])
    values = {"command": "fit", "optimized_metric": None, "task": {}}
    config = OmegaConf.create({**values, "callbacks": {"best": {"monitor": "val/f1"}}})
    assert score_of(trainer, config) is None
