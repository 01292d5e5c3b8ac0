"""Modes of compilation: what each compiles, refuses, and leaves in memory."""

from functools import partial
from typing import ClassVar

import pytest
import torch
from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException

from hiera_video.augment import Mixing
from hiera_video.models import compiling
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
def without_code():
    """Compiled networks run in eager mode."""
    with torch.compiler.set_stance("force_eager"):
        yield


class Played:
    """Stands in for a `RecordedPass` where there is no GPU: the work itself."""

    made: ClassVar[list] = []

    def __init__(self, work, parameters, inputs):
        self.work, self.shapes = work, [tensor.shape for tensor in inputs]
        self.made.append(self)

    def __call__(self, *inputs):
        assert [tensor.shape for tensor in inputs] == self.shapes
        return self.work(*inputs)


@pytest.fixture
def recorded(monkeypatch, without_code):
    """Passes that would be recorded on a GPU."""
    monkeypatch.setattr(compiling, "RecordedPass", Played)
    monkeypatch.setattr(torch.Tensor, "is_cuda", True)
    monkeypatch.setattr(Played, "made", [])
    return Played.made


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize(
    "create",
    [
        partial(PretrainingTask, small_mae, mask_ratio=0.5),
        partial(PretrainingTask, small_mae, mask_ratio=0.5, decoder_mask_ratio=0.5),
        partial(ClassificationTask, tiny_model, mixing=Mixing()),
    ],
)
def test_a_recorded_network_trains_as_before(create, accumulate, recorded):
    steps, expected = Steps(), Steps()
    plain = create()
    torch.manual_seed(0)
    fit(plain, expected, accumulate)
    assert not recorded
    torch.manual_seed(0)
    task = create(compile="reduce-overhead")
    fit(task, steps, accumulate)
    assert len(recorded) == 1  # validation is not recorded
    assert len(steps.numbers) == 8 // accumulate
    torch.testing.assert_close(steps.numbers, expected.numbers)
    if accumulate > 1:  # else the graph would overwrite what is being added up
        assert all(places == steps.places[0] for places in steps.places)
    assert task.model.state_dict().keys() == plain.model.state_dict().keys()


def test_evaluation_and_batches_without_gradient_are_not_recorded(recorded):
    model = small_mae()
    compile_network(model, "max-autotune")
    video = torch.rand(2, 3, 4, 64, 64)
    model.eval()
    model(video, mask_ratio=0.5)
    model.train()
    with torch.no_grad():
        model(video, mask_ratio=0.5)
    assert not recorded


def test_a_network_on_a_cpu_is_not_recorded(without_code):
    model = small_mae().train()
    compile_network(model, "reduce-overhead")
    model(torch.rand(2, 3, 4, 64, 64), mask_ratio=0.5).loss.backward()


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
