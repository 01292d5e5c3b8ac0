"""The last step of a training is logged, however short the training is."""

from functools import partial

import pytest

from hiera_video.callbacks.learning_rate import LearningRate
from hiera_video.callbacks.logged_steps import LogLastStep
from hiera_video.callbacks.speed import Speed
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import Points, quick_trainer


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ({"log_every_n_steps": 50}, [3]),
        ({"log_every_n_steps": 3}, [2, 3]),
        ({"log_every_n_steps": 2}, [1, 3]),  # once
        ({"log_every_n_steps": 50, "max_epochs": 3}, [11]),
        ({"log_every_n_steps": 4, "max_epochs": 5, "max_steps": 6}, [3, 5]),
        ({"log_every_n_steps": 50, "accumulate_grad_batches": 2}, [1]),
        ({"log_every_n_steps": 50, "accumulate_grad_batches": 2, "max_steps": 1}, [0]),
        ({"log_every_n_steps": 50, "limit_train_batches": 2, "max_epochs": 2}, [3]),
        ({"log_every_n_steps": 0}, []),
    ],
    ids=lambda value: (
        " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else ""
    ),
)
def test_the_last_step_is_logged(tmp_path, settings, steps):
    logger = Points(tmp_path)
    callbacks = [LogLastStep(), Speed(), LearningRate()]
    trainer = quick_trainer(logger=logger, callbacks=callbacks, **settings)
    task = PretrainingTask(partial(tiny_mae, embed_dim=8), mask_ratio=0.5)
    trainer.fit(task, datamodule=ColourVideos(train="8", val="2", batch_size=2))
    for name in ("train/loss", "train/grad_norm", "lr", "speed/clips_per_second"):
        assert [step for key, step, _ in logger.points if key == name] == steps, name
    assert trainer.log_every_n_steps == settings["log_every_n_steps"]
