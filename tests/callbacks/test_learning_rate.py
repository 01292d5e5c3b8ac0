"""The curve of the learning rate has the points of that of the loss."""

from functools import partial

import pytest

from hiera_video.callbacks.learning_rate import LearningRate
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae, tiny_model
from tests.quick_trainer import Points, quick_trainer


@pytest.mark.parametrize("accumulate", [1, 2])
def test_it_is_logged_with_the_loss(tmp_path, accumulate):
    logger = Points(tmp_path)
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
    assert [name for name, *_ in logger.points].count("lr") == len(rates)


@pytest.mark.parametrize(
    ("decay", "every_layer", "names"),
    [
        (1.0, True, []),
        (0.5, False, ["lr/layer_00"]),
        (0.5, True, [f"lr/layer_{n:02}" for n in range(7)]),  # patches, 5 blocks, the head
    ],
)
def test_layers_are_logged_from_the_first_to_the_head(tmp_path, decay, every_layer, names):
    logger = Points(tmp_path)
    trainer = quick_trainer(
        log_every_n_steps=2,
        limit_val_batches=0,
        logger=logger,
        callbacks=[LearningRate(every_layer)],
    )
    task = ClassificationTask(partial(tiny_model, embed_dim=8), lr=1e-3, layer_decay=decay)
    trainer.fit(task, datamodule=ColourVideos(train="8"))
    rates = {name: value for name, step, value in logger.points if name.startswith("lr")}
    assert sorted(rates) == ["lr", *names]
    for n, name in enumerate(names):
        assert rates[name] == pytest.approx(rates["lr"] * 0.5 ** (6 - n))
