"""What all tasks that train do and refuse, in a real trainer."""

import math
from functools import partial

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities import rank_zero_only
from torch import nn
from torch.multiprocessing import ProcessRaisedException

from datamodules.loading.sampler import EpochSampler
from datamodules.manifests.splits import make_manifest
from hiera_video.augment.mixing import Mixing
from hiera_video.augment.pipeline import Augmentation
from hiera_video.errors import CheckpointError
from hiera_video.tasks.classification import ClassificationTask
from hiera_video.tasks.detection import DetectionTask
from hiera_video.tasks.instance_segmentation import InstanceSegmentationTask
from hiera_video.tasks.pretraining import PretrainingTask
from tests.fake_videos import ColourVideos
from tests.models.small import tiny_mae, tiny_model
from tests.quick_trainer import quick_trainer

COLOURS = ("red", "green", "blue")
small_mae = partial(tiny_mae, embed_dim=8)
small_model = partial(tiny_model, embed_dim=8)


class Labels(ColourVideos):
    """Videos with these labels in each split, and names for them."""

    def __init__(self, names=("a", "b"), batch_size=2, **labels):
        splits = {split: split if split in labels else None for split in ("train", "val", "test")}
        super().__init__(**splits, batch_size=batch_size)
        self.names, self.labels = names, labels

    def list_split(self, split, class_names):
        paths = [f"/{split}/{i}.mp4" for i in range(len(self.labels[split]))]
        return make_manifest(paths, self.labels[split], self.names or ())


def set_up(task, data=None, **kwargs):
    """The task as it is when its first epoch would begin."""
    quick_trainer(max_epochs=0, **kwargs).fit(task, datamodule=data or ColourVideos())
    return task


def trained(task, data=None, **kwargs):
    """The numbers logged by a training of one step."""
    trainer = quick_trainer(limit_train_batches=1, limit_val_batches=0, **kwargs)
    trainer.fit(task, datamodule=data or ColourVideos())
    return trainer.callback_metrics


def test_class_names_are_those_of_the_data_and_must_agree():
    task = set_up(ClassificationTask(small_model))
    assert task.class_names == COLOURS
    assert task.model.head.projection.out_features == 3
    unnamed = Labels(names=None, train=[0, 0])
    task = set_up(ClassificationTask(small_model, class_names=["x"]), unnamed)
    assert task.class_names == ("x",)
    with pytest.raises(MisconfigurationException, match="in another order or number"):
        set_up(ClassificationTask(small_model, class_names=COLOURS[::-1]))
    with pytest.raises(MisconfigurationException, match="no class names"):
        set_up(ClassificationTask(small_model), Labels(names=None, train=[0, 0]))


@pytest.mark.parametrize("task", [ClassificationTask, DetectionTask, InstanceSegmentationTask])
def test_a_data_module_is_needed(task):
    still = task(small_model, augment=Augmentation(horizontal_flip=False))
    with pytest.raises(MisconfigurationException, match="needs a data module, not loaders alone"):
        quick_trainer().test(still, dataloaders=[torch.zeros(1)])


@pytest.mark.parametrize(("names", "same"), [(COLOURS, True), (None, True), (COLOURS[::-1], False)])
@pytest.mark.parametrize("recorded", [True, False])  # False: as version 0.1 wrote them
def test_a_head_is_not_taken_from_other_classes(tmp_path, names, same, recorded):
    source = small_model(num_classes=3)
    checkpoint = {"state_dict": {f"model.{k}": v for k, v in source.state_dict().items()}}
    if names:  # published weights do not say
        classes = {"class_names": list(names)}
        checkpoint |= {"description": classes} if recorded else classes
    torch.save(checkpoint, tmp_path / "source.ckpt")
    torch.manual_seed(1)
    model = set_up(ClassificationTask(other_head, init_from=str(tmp_path / "source.ckpt"))).model
    assert torch.equal(model.patch_embed.proj.weight, source.patch_embed.proj.weight)
    assert torch.equal(model.head.projection.weight, source.head.projection.weight) == same


def other_head(num_classes):
    model = small_model(num_classes=num_classes)
    nn.init.ones_(model.head.projection.weight)
    return model


def test_labels_are_needed(caplog, monkeypatch):
    for rank in (0, 1):
        monkeypatch.setattr(rank_zero_only, "rank", rank)
        set_up(ClassificationTask(small_model), Labels(train=[0, 1], val=[0, -1]))
    line = "data.val: 1 of 2 videos have no label: not counted"
    assert caplog.messages.count(line) == 1  # by the first process
    with pytest.raises(MisconfigurationException, match=r"data\.train: 1 of 2 videos have no lab"):
        set_up(ClassificationTask(small_model), Labels(train=[0, -1]))
    with pytest.raises(MisconfigurationException, match=r"data\.test: 2 of 2 videos have no label"):
        quick_trainer().test(ClassificationTask(small_model), Labels(test=[-1, -1]))


def test_mixing_needs_two_videos():
    with pytest.raises(MisconfigurationException, match=r"data\.batch_size=2"):
        set_up(ClassificationTask(small_model, mixing=Mixing()), ColourVideos(batch_size=1))


class Colour(nn.Module):
    """Predicts the colour of a clip, or the class ``shift`` after it, and notes torch's seed.

    The seeds are those of all training batches.
    """

    def __init__(self, num_classes, shift=0):
        super().__init__()
        self.gain, self.shift, self.seeds = nn.Parameter(torch.ones(())), shift, []
        self.head = small_model(num_classes=num_classes).head  # whose classes the task reads

    def forward(self, video):
        if self.training:
            self.seeds.append(torch.initial_seed())
        return (self.gain * video.mean(dim=(2, 3, 4))).roll(self.shift, 1)  # (B, 3)


class NextClass(Mixing):
    """Targets that are 0.4 a clip's own class, and 0.6 the next one."""

    def __call__(self, video, target, draw):
        return video, 0.4 * target + 0.6 * target.roll(1, 1)


@pytest.mark.parametrize(("shift", "top1"), [(0, 0.0), (1, 1.0)])
def test_a_mixed_clip_counts_as_the_class_that_has_most_of_it(shift, top1):
    task = ClassificationTask(partial(Colour, shift=shift), mixing=NextClass())
    assert trained(task)["train/top1"] == top1


def test_logged_losses_are_means_of_all_batches_of_a_step():
    def loss(**kwargs):
        task = ClassificationTask(
            Colour, lr=1e-12, min_lr=0.0, augment=Augmentation(horizontal_flip=False)
        )
        trainer = quick_trainer(limit_val_batches=0, **kwargs)
        trainer.fit(task, datamodule=ColourVideos())
        return trainer.callback_metrics["train/loss"]

    one_by_one = []
    for batches in (1, 2, 3):  # the last of the batches is logged
        one_by_one.append(loss(limit_train_batches=batches))
    assert loss(accumulate_grad_batches=3) == pytest.approx(float(sum(one_by_one)) / 3, rel=1e-5)


def test_drop_path_is_drawn_anew_for_each_batch_and_rank(monkeypatch):
    def seeds(rank, seed=0):
        monkeypatch.setattr(ClassificationTask, "global_rank", rank)
        task = ClassificationTask(Colour, seed=seed)
        trainer = quick_trainer(limit_val_batches=0, max_epochs=2)
        trainer.fit(task, datamodule=ColourVideos())
        return task.model.seeds

    first, second, other = seeds(0), seeds(1), seeds(0, seed=1)
    assert len({*first, *second, *other}) == 18
    assert seeds(0) == first


def test_pretraining_is_tested_but_does_not_predict():
    task = PretrainingTask(small_mae, mask_ratio=0.5)
    data = ColourVideos(test="6", bad=("/6/2.mp4",))
    (numbers,) = quick_trainer().test(task, datamodule=data, verbose=False)
    assert math.isfinite(numbers["test/loss"])
    assert task.results is None
    with pytest.raises(MisconfigurationException, match="predicts no classes"):
        quick_trainer().predict(task, dataloaders=[torch.zeros(1)])


def two_ranks(videos, bad, apart, **kwargs):
    """Arguments of a fit on two processes, with bad videos at every ``apart``-th place."""
    order = EpochSampler(videos, training=True).order()
    paths = [f"/{videos}/{order[apart * i]}.mp4" for i in range(bad)]  # even places are of rank 0
    data = ColourVideos(train=str(videos), bad=paths, **kwargs)
    task = PretrainingTask(partial(small_mae, decoder_embed_dim=8), mask_ratio=0.5)
    trainer = quick_trainer(devices=2, strategy="ddp_fork", limit_val_batches=0)
    return trainer, task, data


@pytest.mark.parametrize("apart", [3, 1])  # 1: both ranks meet those that replace others
def test_bad_videos_are_counted_on_all_ranks_together(apart):
    trainer, task, data = two_ranks(20, 4, apart, batch_size=2, max_bad_share=0.2)
    trainer.fit(task, datamodule=data)
    assert trainer.callback_metrics["train/bad_videos"] == 4


def test_too_many_bad_videos_stop_all_ranks_within_the_epoch(monkeypatch):
    """Three of them on each rank alone would not be too many."""
    monkeypatch.setattr("hiera_video.tasks.base.COUNT_BAD_VIDEOS_EVERY", 9)  # of ten batches
    trainer, task, data = two_ranks(20, 6, 3, batch_size=1, max_bad_share=0.25)
    with pytest.raises(ProcessRaisedException, match="6 of this epoch's 20 videos") as error:
        trainer.fit(task, datamodule=data)
    assert "TooManyBadVideos" in str(error.value)
    assert "on_train_batch_end" in str(error.value)


def test_gradients_are_clipped_by_their_norm():
    task = PretrainingTask(small_mae, mask_ratio=0.5)
    norm = trained(task, gradient_clip_val=0.01)["train/grad_norm"]
    assert norm > 0.01
    clipped = torch.stack([p.grad.norm() for p in task.parameters() if p.grad is not None])
    torch.testing.assert_close(clipped.norm(), torch.tensor(0.01), rtol=1e-3, atol=0)
    with pytest.raises(MisconfigurationException, match="clipped by norm"):
        trained(task, gradient_clip_val=1.0, gradient_clip_algorithm="value")


# To make code, torch looks at the gradient of each input, that of a block too.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_compiling_in_place_keeps_names_and_numbers(monkeypatch):
    compile_, compiled = nn.Module.compile, []

    def compile_eagerly(module, **kwargs):  # with inductor's code generator this takes a minute
        compiled.append(module)
        compile_(module, backend="aot_eager", **kwargs)

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    tasks = [PretrainingTask(small_mae, compile=flag, mask_ratio=0.5) for flag in (False, True)]
    losses = []
    for task in tasks:
        torch.manual_seed(0)
        losses.append(trained(task)["train/loss"])
    model = tasks[1].model
    assert compiled == [model.patch_embed, *model.blocks, *model.decoder_blocks]
    torch.testing.assert_close(*losses)
    plain, other = (task.state_dict() for task in tasks)
    assert plain.keys() == other.keys()
    for name, value in plain.items():
        torch.testing.assert_close(other[name], value, msg=name)


def test_weights_of_images_are_inflated_if_the_task_says_so(tmp_path):
    image = small_model(input_size=(64, 64), num_classes=3)
    torch.save(image.state_dict(), tmp_path / "image.pth")
    task = partial(ClassificationTask, small_model, init_from=str(tmp_path / "image.pth"))
    with pytest.raises(CheckpointError, match=r"task\.inflate=true"):
        set_up(task())
    assert torch.equal(set_up(task(inflate=True)).model.pos_embed_spatial, image.pos_embed)


def test_an_evaluation_needs_all_weights(tmp_path):
    weights = small_model(num_classes=3).state_dict()
    del weights["head.projection.weight"]
    torch.save(weights, tmp_path / "headless.pth")
    task = ClassificationTask(small_model, init_from=str(tmp_path / "headless.pth"))
    with pytest.raises(MisconfigurationException, match=r"lacks head.projection.weight"):
        quick_trainer().test(task, datamodule=ColourVideos())
