"""A training step on a GPU."""

from functools import partial

import pytest
import torch
from lightning import Callback

from hiera_video import create_detector
from hiera_video.augment import Augmentation, Mixing, RandAugment, RandomErasing
from hiera_video.callbacks.recovery import ContinueEpoch
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.tasks.detection import DetectionTask
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import TINY, tiny_mae, tiny_model
from tests.quick_trainer import quick_trainer
from tests.tasks.boxes import BoxData

pytestmark = [
    pytest.mark.gpu,
    # Says where it hangs; nothing else would end it. Compiling takes minutes on busy cores.
    pytest.mark.timeout(300, method="thread"),
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),
    # To make code, torch looks at the gradient of each input, that of a block too.
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype"),
    # The thread of the backward pass has used no device yet; torch then gives it one.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS, but there was no current CUDA"),
    pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning"),  # torch's own use of it
]


def on_host(create, **kwargs):
    """The test models' weights are drawn on the CPU, where Lightning would not make them."""
    with torch.device("cpu"):
        return create(**kwargs)


augment = Augmentation(rand_augment=RandAugment(probability=1.0), erasing=RandomErasing(1.0))
TASKS = {
    "pretraining": partial(PretrainingTask, partial(on_host, tiny_mae), mask_ratio=0.5),
    "classification": partial(
        ClassificationTask,
        partial(on_host, tiny_model, drop_path_rate=0.2),
        augment=augment,
        mixing=Mixing(),
    ),
}


class NoWaiting(Callback):
    """Raises an error where a step waits for the device, except for the first steps, which load."""

    def __init__(self, first=3):
        self.first, self.checked = first, 0

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step >= self.first:
            torch.cuda.set_sync_debug_mode("error")
            self.checked += 1

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("default")

    def on_exception(self, trainer, pl_module, exception):
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("compiled", [False, True, "reduce-overhead"])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("kind", TASKS)
def test_no_step_waits_for_the_device(kind, precision, compiled):
    watch = NoWaiting()
    trainer = quick_trainer(
        accelerator="gpu",
        devices=1,
        precision=precision,
        max_epochs=4,
        gradient_clip_val=1.0,
        limit_val_batches=0,
        callbacks=[watch],
        log_every_n_steps=100,
    )
    trainer.fit(TASKS[kind](compile=compiled), datamodule=ColourVideos(batch_size=2))
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert watch.checked


@pytest.mark.parametrize("compiled", [False, True])
def test_no_step_of_a_detector_of_actions_waits_for_the_device(compiled):
    create = partial(on_host, create_detector, name="hiera_tiny_16x224", **TINY)
    watch = NoWaiting()
    trainer = quick_trainer(
        accelerator="gpu",
        precision="bf16-mixed",
        max_epochs=8,  # of one batch each
        limit_val_batches=0,
        callbacks=[watch],
        log_every_n_steps=100,
    )
    trainer.fit(DetectionTask(create, compile=compiled), datamodule=BoxData())
    assert trainer.callback_metrics["train/loss"].isfinite()
    assert watch.checked


@pytest.mark.parametrize("kind", TASKS)
def test_half_precision_trains(kind):
    task = TASKS[kind]()
    trainer = quick_trainer(
        accelerator="gpu", devices=1, precision="16-mixed", max_epochs=1, limit_val_batches=0
    )
    trainer.fit(task, datamodule=ColourVideos(batch_size=2))
    assert trainer.callback_metrics["train/loss"].isfinite()


class Steps(Callback):
    """Loss of the last batch and gradient norm of each step."""

    def __init__(self):
        self.numbers = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.skipped is not None:  # a step is complete
            norm = trainer.callback_metrics["train/grad_norm"]
            self.numbers.append(torch.stack([outputs["loss"], norm]).tolist())


def steps(task, accumulate=1, callbacks=(), **kwargs):
    """Numbers of each of 24 / `accumulate` steps, or of those that are left of them."""
    noted = Steps()
    trainer = quick_trainer(
        accelerator="gpu",
        devices=1,
        precision="bf16-mixed",
        max_epochs=3,
        accumulate_grad_batches=accumulate,
        callbacks=[ContinueEpoch(), noted, *callbacks],
    )
    data = ColourVideos(train="16", batch_size=2, eval_batch_size=4)  # the last evaluated has two
    trainer.fit(task, datamodule=data, **kwargs)
    return torch.tensor(noted.numbers)


class Save(Callback):
    """Saves a checkpoint after so many steps."""

    def __init__(self, step, path):
        self.step, self.path = step, path

    def on_train_batch_end(self, trainer, *args):
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_compiled_steps_are_those_of_eager_mode(mode, accumulate):
    task = partial(PretrainingTask, partial(on_host, tiny_mae), mask_ratio=0.5, lr=1e-3)
    torch.manual_seed(0)
    expected = steps(task(), accumulate)
    torch.manual_seed(0)
    actual = steps(task(compile=mode), accumulate)
    assert len(actual) == 24 // accumulate
    torch.testing.assert_close(actual, expected, rtol=0.02, atol=0)


@pytest.mark.parametrize("kind", TASKS)
def test_a_run_on_graphs_goes_on_where_it_was_saved(kind, tmp_path):
    """With drop path, whose random numbers are drawn within the graph, at its first step too."""
    path = tmp_path / "last.ckpt"
    torch.manual_seed(0)
    expected = steps(TASKS[kind](compile="reduce-overhead"), callbacks=[Save(12, path)])
    torch.manual_seed(1)
    rest = steps(TASKS[kind](compile="reduce-overhead"), ckpt_path=path, weights_only=True)
    assert (len(expected), len(rest)) == (24, 12)
    torch.testing.assert_close(rest, expected[12:], rtol=0.02, atol=0)
