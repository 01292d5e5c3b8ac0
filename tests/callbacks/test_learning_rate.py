"""The curve of the learning rate has the points of that of the loss."""

import pytest
from lightning.pytorch.loggers import CSVLogger

from hiera_video.callbacks.learning_rate import LearningRate
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer


class Memory(CSVLogger):
    """Keeps all points of each curve."""

    def __init__(self, folder):
        super().__init__(folder)
        self.points = []

    def log_metrics(self, metrics, step=None):
        self.points += [(name, step, value) for name, value in metrics.items()]

    def curve(self, name):
        return {step: value for key, step, value in self.points if key == name}


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_is_logged_with_the_loss(tmp_path, accumulate):
    logger = Memory(tmp_path)
    trainer = quick_trainer(
        max_epochs=3,
        accumulate_grad_batches=accumulate,
        log_every_n_steps=2,
        limit_val_batches=0,
        logger=logger,
        callbacks=[LearningRate()],
    )
    task = PretrainingTask(
        lambda: tiny_mae(embed_dim=8), lr=1e-3, warmup_epochs=1, layer_decay=0.5, mask_ratio=0.5
    )
    trainer.fit(task, datamodule=ColourVideos(train="8", batch_size=1))
    rates = logger.curve("lr")
    assert list(rates) == list(logger.curve("train/loss"))
    assert len(rates) == 12 // accumulate
    warmup = 8 // accumulate
    assert rates[1] == pytest.approx(1e-6 + (1e-3 - 1e-6) * 2 / warmup)  # that of the head
    assert max(rates, key=rates.get) == warmup - 1
