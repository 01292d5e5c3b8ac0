"""Modes of compilation: what each compiles, refuses, and leaves in memory."""

from functools import partial

import pytest
import torch
from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hiera_video.models.compiling import compile_network
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.tasks.cuda_graphs import check_graphs, check_mode
from hiera_video.tasks.detection import DetectionTask
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae, tiny_model
from tests.quick_trainer import quick_trainer

small_mae = partial(tiny_mae, embed_dim=8, stages=(1, 1, 1, 1))


class Steps(Callback):
    """Notes loss, gradient norm and where gradients lie in memory, at each step."""

    def __init__(self):
        self.numbers, self.places = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if pl_module.skipped is not None:  # a step is complete
            norm = trainer.callback_metrics["train/grad_norm"]
            self.numbers.append(torch.stack([outputs["loss"], norm]))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.places.append([parameter.grad.data_ptr() for parameter in pl_module.parameters()])


def fit(task, steps, accumulate=1):
    trainer = quick_trainer(accumulate_grad_batches=accumulate, callbacks=[steps])
    trainer.fit(task, datamodule=ColourVideos(train="16", batch_size=2, eval_batch_size=4))


@pytest.fixture
def without_code(monkeypatch):
    """Compiled networks are traced, but run without inductor's code; modes that were asked for."""
    compile_, modes = torch.compile, []

    def trace(model, mode, **kwargs):
        modes.append(mode)
        return compile_(model, backend="eager", **kwargs)

    monkeypatch.setattr(torch, "compile", trace)
    torch.compiler.reset()
    return modes


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_whole_network_trains_as_before(accumulate, without_code, monkeypatch):
    marks, steps, expected = [], Steps(), Steps()
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: marks.append(1))
    fit(PretrainingTask(small_mae, mask_ratio=0.5), expected, accumulate)
    assert not marks
    task = PretrainingTask(small_mae, mask_ratio=0.5, compile="reduce-overhead")
    fit(task, steps, accumulate)
    assert without_code == ["reduce-overhead"]
    assert len(marks) == 8  # one for each batch of the training, none for the validation
    assert len(steps.numbers) == 8 // accumulate
    torch.testing.assert_close(steps.numbers, expected.numbers)
    if accumulate > 1:  # else the graph would overwrite what is being added up
        assert all(places == steps.places[0] for places in steps.places)
    assert task.model.state_dict().keys() == small_mae().state_dict().keys()


def test_evaluation_is_not_compiled(without_code):
    """Its batches have other shapes, each of which would be recorded on a graph of its own."""
    model = small_mae()
    compile_network(model, "max-autotune")
    video = torch.rand(2, 3, 4, 64, 64)
    model.train()
    model(video, mask_ratio=0.5)
    model.eval()
    with torch.compiler.set_stance("fail_on_recompile"):
        model(video[:1], mask_ratio=0.5)
        model.train()
        with pytest.raises(RuntimeError, match="recompile"):
            model(video[:1], mask_ratio=0.5)


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        (None, None),
        (False, None),
        (True, "default"),
        ("default", "default"),
        ("reduce-overhead", "reduce-overhead"),
        ("max-autotune", "max-autotune"),
    ],
)
def test_modes(words, mode):
    assert check_mode(words) == mode


def test_another_mode_is_refused():
    with pytest.raises(ValueError, match="compile must be true, false, default, .*not 'fast'"):
        ClassificationTask(tiny_model, compile="fast")


@pytest.mark.parametrize(
    ("strategy", "arguments", "same_shapes", "reason"),
    [
        ("ddp", {}, True, "DDPStrategy: it is for one device"),
        ("auto", {"grad_checkpointing": True}, True, "model.grad_checkpointing"),
        ("auto", {}, DetectionTask.same_shapes, "number of boxes"),
    ],
)
def test_what_does_not_go_with_graphs_is_refused(strategy, arguments, same_shapes, reason):
    trainer, model = quick_trainer(strategy=strategy), tiny_model(**arguments)
    with pytest.raises(MisconfigurationException, match=reason):
        check_graphs("reduce-overhead", trainer, model, same_shapes)
    check_graphs("default", trainer, model, same_shapes)


def test_checkpointing_is_refused_in_training():
    model = partial(small_mae, grad_checkpointing=True)
    task = PretrainingTask(model, mask_ratio=0.5, compile="reduce-overhead")
    with pytest.raises(MisconfigurationException, match="set task.compile=default"):
        quick_trainer().fit(task, datamodule=ColourVideos())
