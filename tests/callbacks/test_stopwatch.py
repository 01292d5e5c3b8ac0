"""Steps, clips and seconds of a training are counted, and nothing that is no training."""

import time
from copy import copy
from functools import partial

import pytest
from lightning import Callback
from torch.utils.data import DataLoader

from hiera_video.callbacks.recovery import ContinueEpoch
from hiera_video.callbacks.stopwatch import Stopwatch
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae
from tests.quick_trainer import quick_trainer


class Laps(Stopwatch):
    """A lap for each step."""

    def __init__(self):
        super().__init__()
        self.laps = []  # step, lap

    def on_step_end(self, trainer, pl_module):
        self.laps.append((trainer.global_step, self.take_lap()))


class SlowVideos(ColourVideos):
    """Every clip takes some seconds to read, the very first one more."""

    def __init__(self, seconds, first=0.0, **kwargs):
        super().__init__(**kwargs)
        self.seconds, self.first = seconds, first

    def training_clips(self, manifest):
        clips, read, module = super().training_clips(manifest), [], self

        class Slow(type(clips)):
            def __getitem__(self, key):
                time.sleep(module.seconds if read else module.seconds + module.first)
                read.append(key)
                return super().__getitem__(key)

        return Slow(clips.clips, module.bad)


class SlowTask(PretrainingTask):
    """Every batch takes some seconds."""

    def __init__(self, seconds=0.0):
        super().__init__(partial(tiny_mae, embed_dim=8), mask_ratio=0.5)
        self.seconds = seconds

    def training_step(self, batch, batch_idx):
        time.sleep(self.seconds)
        return super().training_step(batch, batch_idx)


class SlowRest(Callback):
    """Every validation and every checkpoint takes 0.7 s."""

    def on_validation_end(self, trainer, pl_module):
        time.sleep(0.7)

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        time.sleep(0.7)


class SaveEachStep(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, *args):
        trainer.save_checkpoint(self.path)


@pytest.mark.parametrize(("accumulate", "clips"), [(1, 2), (2, 4)])
def test_steps_and_clips_are_counted(accumulate, clips):
    laps = Laps()
    trainer = quick_trainer(
        max_epochs=2, limit_val_batches=0, accumulate_grad_batches=accumulate, callbacks=[laps]
    )
    data = ColourVideos(train="8", batch_size=2, bad=("/8/3.mp4",), max_bad_share=0.2)
    trainer.fit(SlowTask(), datamodule=data)
    steps = 8 // accumulate
    assert [step for step, _ in laps.laps] == list(range(1, steps + 1))
    assert {(lap.steps, lap.clips) for _, lap in laps.laps} == {(1, clips)}
    # Once an epoch.
    assert sum(lap.failed for _, lap in laps.laps) == 2


def test_a_resumed_training_is_counted_from_where_it_goes_on(tmp_path):
    path = tmp_path / "last.ckpt"
    data = partial(ColourVideos, train="8", batch_size=2)
    callbacks = [ContinueEpoch(), SaveEachStep(path)]
    quick_trainer(max_epochs=4, max_steps=3, callbacks=callbacks, limit_val_batches=0).fit(
        SlowTask(), datamodule=data()
    )
    laps = Laps()
    trainer = quick_trainer(max_epochs=2, callbacks=[ContinueEpoch(), laps], limit_val_batches=0)
    trainer.fit(SlowTask(), datamodule=data(), ckpt_path=path, weights_only=True)
    assert [(step, lap.steps, lap.clips) for step, lap in laps.laps] == [
        (step, 1, 2) for step in range(4, 9)
    ]
    assert laps.laps[0][1].waiting == 0


def test_waiting_is_the_time_of_the_loader():
    laps = Laps()
    trainer = quick_trainer(max_epochs=2, limit_val_batches=0, callbacks=[laps])
    # Two clips a batch, so 0.2 s for a batch, and 0.1 s for the step.
    trainer.fit(SlowTask(0.1), datamodule=SlowVideos(0.1, first=2, train="6", batch_size=2))
    (_, first), *others = laps.laps
    assert first.waiting == 0
    assert 0.1 < first.seconds < 1.5
    assert len(others) == 5
    for _, lap in others:  # the first of the second epoch, too
        assert 0.2 < lap.waiting < 0.5
        assert 0.3 < lap.seconds < 1.2
        assert 0.2 < lap.waiting_share < 0.75
        assert lap.clips_per_second == pytest.approx(2 / lap.seconds)


def test_validations_and_checkpoints_are_left_out(tmp_path):
    laps = Laps()
    trainer = quick_trainer(
        val_check_interval=1,
        callbacks=[laps, SlowRest(), SaveEachStep(tmp_path / "last.ckpt")],
    )
    trainer.fit(SlowTask(), datamodule=SlowVideos(0.1, train="6", val="2", batch_size=2))
    assert len(laps.laps) == 3
    for _, lap in laps.laps[1:]:
        assert 0.2 < lap.waiting < lap.seconds < 0.9  # of more than 1.6 s


def test_a_loader_that_says_nothing_of_waiting():
    class Unknown(SlowVideos):
        def train_dataloader(self):
            return DataLoader(list(super().train_dataloader()), batch_size=None, collate_fn=copy)

    laps = Laps()
    trainer = quick_trainer(limit_val_batches=0, callbacks=[laps])
    trainer.fit(SlowTask(), datamodule=Unknown(0, train="4", batch_size=2))
    assert len(laps.laps) == 2
    _, lap = laps.laps[-1]
    assert lap.seconds > 0
    assert lap.waiting != lap.waiting  # NaN
