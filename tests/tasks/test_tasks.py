"""What tasks refuse."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from torch import nn

from datamodules.errors import TooManyBadVideos
from datamodules.loading.bad_videos import Failure
from datamodules.loading.loader import EpochSampler, Loader
from hiera_video import create_model
from hiera_video.augment.mixing import Mixing
from hiera_video.errors import CheckpointError
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.tasks.pretraining import PretrainingTask
from tests.datamodules.loading.numbers import Numbers
from tests.models.small import tiny_mae, tiny_model


class Labels(SimpleNamespace):
    def __len__(self):
        return len(self.table["label"])


class Column(list):
    def to_numpy(self):
        return np.array(self)


def classification(labels, names=("a", "b"), **kwargs):
    """A task that is set up for data with some labels."""
    task = ClassificationTask(create_model, **kwargs)
    manifests = {split: Labels(table={"label": Column(column)}) for split, column in labels.items()}
    data = SimpleNamespace(class_names=names, manifests=manifests, batch_size=1, repeats=2)
    data.views = lambda split: (1, 1)
    # No trainer is needed to ask for its data.
    task._trainer = SimpleNamespace(datamodule=data, world_size=1, accumulate_grad_batches=1)
    task.setup("fit")
    return task


def test_class_names_are_those_of_the_data_and_must_agree():
    assert classification({"train": [0, 1]}).class_names == ("a", "b")
    assert classification({"train": [0]}, names=None, class_names=["x"]).class_names == ("x",)
    with pytest.raises(MisconfigurationException, match="in another order or number"):
        classification({"train": [0, 1]}, class_names=["b", "a"])
    with pytest.raises(MisconfigurationException, match="no class names"):
        classification({"train": [0]}, names=None)


def test_a_head_is_not_taken_from_other_classes():
    task = classification({"train": [0, 1]})
    assert task.same_classes({"class_names": ["a", "b"]})
    assert task.same_classes({})  # published weights do not say
    assert not task.same_classes({"class_names": ["b", "a"]})


def test_labels_are_needed():
    classification({"train": [0, 1], "val": [0, -1], "predict": [-1]})
    with pytest.raises(MisconfigurationException, match=r"data\.train: 1 of 2 videos have no lab"):
        classification({"train": [0, -1]})
    with pytest.raises(MisconfigurationException, match=r"data\.test: 2 of 2 videos have no label"):
        classification({"test": [-1, -1]})


def test_mixing_needs_two_videos():
    with pytest.raises(MisconfigurationException, match=r"data\.batch_size=2"):
        classification({"train": [0, 1]}, mixing=Mixing())


def test_pretraining_does_not_predict():
    with pytest.raises(MisconfigurationException, match="predicts no classes"):
        PretrainingTask(create_model).setup("predict")


def test_bad_videos_are_counted_once_on_all_ranks_together():
    loader = Loader(Numbers(400), EpochSampler(400, training=True, world_size=2), 4)  # 4 may fail
    strategy = SimpleNamespace(reduce=lambda count, reduce_op: count * 2)  # as many on the other
    task = PretrainingTask(create_model)
    task._trainer = SimpleNamespace(world_size=2, strategy=strategy, train_dataloader=loader)
    for video in (1, 2, 1):
        task.on_train_batch_end(None, {"failed": [Failure(video, 0, "damaged")]}, 0)
    assert task._count_bad_videos() == 4
    batch = {"failed": [Failure(3, 0, "damaged")]}
    task.on_train_batch_end(None, batch, 1)
    with pytest.raises(TooManyBadVideos, match="6 of this epoch's 400 videos"):
        task.on_train_batch_end(None, batch, 49)


def test_gradients_that_cannot_be_clipped():
    task = PretrainingTask(create_model)
    task._trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler="a scaler"))
    with pytest.raises(MisconfigurationException, match="clipped by norm"):
        task.configure_gradient_clipping(None, 1.0, "value")
    fused = SimpleNamespace(_step_supports_amp_scaling=True)
    with pytest.raises(MisconfigurationException, match="cannot clip under 16-mixed"):
        task.configure_gradient_clipping(fused, 1.0, "norm")


def test_compiling_in_place_keeps_names_and_numbers(monkeypatch):
    compile_ = nn.Module.compile  # with inductor's code generator this takes a minute
    monkeypatch.setattr(nn.Module, "compile", lambda m: compile_(m, backend="aot_eager"))
    tasks = [PretrainingTask(tiny_mae, compile=flag, mask_ratio=0.5) for flag in (False, True)]
    for task in tasks:
        task._trainer = SimpleNamespace(training=True)
        torch.manual_seed(0)
        task.configure_model()
    plain, compiled = tasks
    assert compiled.model._compiled_call_impl is not None
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    video, seed = torch.randn(2, 3, *plain.model.input_size), torch.tensor([1, 2])
    expected, found = plain(video, seed), compiled(video, seed)
    torch.testing.assert_close(found.loss, expected.loss)
    found.loss.backward()
    assert compiled.model.decoder_pred.weight.grad.abs().sum() > 0


def test_weights_of_images_are_inflated_if_the_task_says_so(tmp_path):
    image = tiny_model(input_size=(64, 64))
    torch.save(image.state_dict(), tmp_path / "image.pth")
    for inflate in (False, True):
        task = PretrainingTask(tiny_model, init_from=str(tmp_path / "image.pth"), inflate=inflate)
        task._trainer = SimpleNamespace(training=True, global_rank=0)
        if not inflate:
            with pytest.raises(CheckpointError, match=r"task\.inflate=true"):
                task.configure_model()
            continue
        task.configure_model()
        assert torch.equal(task.model.pos_embed_spatial, image.pos_embed)
