"""The recipe, the schedule, what a batch becomes, and that training finds shapes."""

import functools
import json

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, seed_everything
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_only

from datamodules import DatasetError, SyntheticCocoDataModule
from docs.recipes import composed
from hiera_video import create_mask_rcnn
from hiera_video.augment import Augmentation, Normalize, RandomErasing
from hiera_video.callbacks import InstanceFile
from hiera_video.models.mask_rcnn import MaskRCNNHiera
from hiera_video.models.names import IMAGE_MEAN, IMAGE_STD
from hiera_video.results.coco import evaluate_files
from hiera_video.tasks import InstanceSegmentationTask
from hiera_video.tasks.instance_segmentation import targets_of, unpack_bits
from hiera_video.tasks.optimization import warmup_steps
from hiera_video.weights.description import RECORD
from hiera_video.weights.trained import classes_of
from tests.quick_trainer import quick_trainer

# Table 15 of the paper: (lr, drop path); all three share the rest.
RECIPE = {"base": (3.5e-5, 0.2), "base_plus": (3.5e-5, 0.2), "large": (3e-5, 0.4)}
SMALL = functools.partial(
    create_mask_rcnn,
    "hiera_tiny_224",
    embed_dim=16,
    stages=(1, 1, 1, 1),
    width=24,
    box_features=48,
    box_samples=32,
)
STILL = Augmentation(horizontal_flip=False)


def task_of(**kwargs):
    return InstanceSegmentationTask(SMALL, **{"augment": STILL, **kwargs})


def shapes(root, pictures=(8, 4, 4), **kwargs):
    options = {"size": (64, 64), "scale": (1.0, 1.0), "batch_size": 4, **kwargs}
    data = SyntheticCocoDataModule(root, pictures, 64, **options)
    data.prepare_data()
    return data


def test_boxes_are_in_pixels_of_the_file():
    """Its width and height may be scaled by factors that differ a little."""
    found = {"boxes": torch.tensor([[8.0, 8.0, 16.0, 32.0]])}
    task = task_of()
    task.model = torch.nn.Module()
    task.model.forward = lambda images, sizes: [dict(found)]
    batch = {
        "video": torch.zeros(1, 3, 1, 64, 64, dtype=torch.uint8),
        "sizes": [(64, 40)],
        "original_size": torch.tensor([[128, 120]]),  # height, width
        "picture_size": torch.tensor([[64, 40]]),
    }
    (detected,) = task.detect(batch)
    assert detected["boxes"].tolist() == [[24, 16, 48, 64]]
    assert task.detect({"video": batch["video"][:0]}) == []


@pytest.mark.parametrize("size", RECIPE)
def test_recipe_of_the_paper(size):
    lr, drop_path = RECIPE[size]
    config = composed(f"coco/{size}")
    task = instantiate(config["task"], _convert_="all")
    data = instantiate(config["data"], _convert_="all")
    with torch.device("meta"):
        model = task.create_network()
    assert isinstance(model, MaskRCNNHiera)
    assert (task.lr, task.weight_decay, task.layer_decay) == (lr, 0.1, 1.0)
    assert model.blocks[-1].drop_path == pytest.approx(drop_path)
    assert (model.num_classes, model.positions) == (80, "windows")
    optimizer = task.optimizer([torch.nn.Parameter(torch.zeros(1))])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.999)
    assert (task.budget.batch, task.budget.lr_reference) == (64, 64)
    assert config["trainer"]["max_epochs"] == 100
    assert ((data.clip.height, data.clip.width), data.scale) == ((1024, 1024), [0.1, 2.0])
    # ViTDet's schedule.
    steps = 184_375
    assert [round(steps * share) for share in task.milestones] == pytest.approx(
        [163_889, 177_546], abs=2
    )
    assert task.warmup_epochs / 100 * steps == pytest.approx(250, abs=0.1)
    assert task.warmup_lr == pytest.approx(lr / 1000)
    assert task.init_from == f"mae_hiera_{size}_224"
    assert (task.normalize.mean, task.normalize.std) == (IMAGE_MEAN, IMAGE_STD)


def test_schedule():
    factors = [warmup_steps(step, 4, 0.2, [6, 8], 0.1) for step in range(10)]
    assert factors == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 0.1, 0.1, 0.01, 0.01])
    assert warmup_steps(0, 0, 0.2, [], 0.1) == 1


class Rates(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.seen.append([group["lr"] for group in trainer.optimizers[0].param_groups])


def test_the_rate_falls_in_steps_and_positions_do_not_decay(tmp_path):
    rates, task = Rates(), task_of(lr=1e-4, warmup_epochs=1, warmup_lr=1e-5, milestones=(0.5, 0.75))
    trainer = quick_trainer(max_epochs=4, limit_val_batches=0, callbacks=[rates])
    trainer.fit(task, datamodule=shapes(tmp_path, keep_empty=True))
    expected = [1e-5, 5.5e-5, 1e-4, 1e-4, 1e-5, 1e-5, 1e-6, 1e-6]
    for group in np.transpose(rates.seen):
        assert group.tolist() == pytest.approx(expected)
    without = {
        name
        for group in trainer.optimizers[0].param_groups
        for name in group["names"]
        if group["weight_decay"] == 0
    }
    assert "pos_embed" in without
    assert "stage_norms.0.weight" in without
    assert "fpn.inner_blocks.0.0.weight" not in without


def test_objects_go_to_their_pictures():
    masks = torch.randint(0, 2, (3, 16, 24), dtype=torch.uint8)
    packed = torch.from_numpy(np.packbits(masks.numpy(), axis=2))
    assert torch.equal(unpack_bits(packed), masks)
    batch = {
        "boxes": torch.arange(12.0).reshape(3, 4),
        "box_labels": torch.tensor([1, 2, 3]),
        "masks": packed,
        "counts": [1, 0, 2],
    }
    one, none, two = targets_of(batch)
    assert (one["labels"].tolist(), none["labels"].tolist(), two["labels"].tolist()) == (
        [1],
        [],
        [2, 3],
    )
    assert torch.equal(two["masks"], masks[1:])
    assert none["boxes"].shape == (0, 4)


def test_results_file_and_checkpoint(tmp_path):
    data, task = shapes(tmp_path), task_of(lr=1e-3)
    trainer = quick_trainer(callbacks=[InstanceFile(tmp_path / "found.json")])
    trainer.fit(task, datamodule=data)
    (numbers,) = trainer.test(task, datamodule=data, verbose=False)
    assert numbers["test/failed_pictures"] == 0
    truth = data.truth_file("test")
    results, fit = evaluate_files(truth, tmp_path / "found.json")
    assert results.summary() == task.results.summary()
    assert numbers["test/mask_AP"] == pytest.approx(results.values()["mask_AP"], abs=1e-6)
    assert fit.detections > 0
    assert not fit.unknown_images
    for row in json.loads((tmp_path / "found.json").read_text()):
        x, y, w, h = row["bbox"]
        assert -0.01 < x < x + w < 64.01
        assert -0.01 < y < y + h < 64.01
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    record = checkpoint[RECORD]
    assert classes_of(checkpoint) == (("disc", "square", "triangle"), (3, 7, 12))
    assert record["evaluation"] == {"pad": [64, 64]}


@pytest.mark.parametrize("monitor", ["val/mask_AP", "val/box_AP"])
def test_objects_without_masks_are_told_before_training(tmp_path, caplog, monkeypatch, monitor):
    data = shapes(tmp_path)
    file = data.truth_file("val")
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = []
    file.write_text(json.dumps(content))
    best = ModelCheckpoint(tmp_path / "best", monitor=monitor, mode="max")
    trainer = quick_trainer(callbacks=[best], enable_checkpointing=True, max_steps=1)
    if monitor == "val/mask_AP":
        with pytest.raises(MisconfigurationException, match="there will be no val/mask_AP; set"):
            trainer.fit(task_of(), datamodule=data)
    else:
        trainer.fit(task_of(), datamodule=data)
        assert "val/mask_AP" not in trainer.callback_metrics
    count = len(content["annotations"])
    line = f"{file}: 1 of {count} annotations without a mask, such as "
    assert [text for text in caplog.messages if text.startswith(line)], caplog.messages
    caplog.clear()
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    data.ground_truth("val")
    assert not caplog.messages  # the first process has said it


def test_a_wrong_ground_truth_is_refused_before_the_test(tmp_path):
    data = shapes(tmp_path)
    file = data.truth_file("test")
    content = json.loads(file.read_text())
    content["annotations"][0]["segmentation"] = [1, 2, 3, 4, 5, 6]
    file.write_text(json.dumps(content))
    with pytest.raises(DatasetError, match=r"annotation \d+: polygons must be a list of lists"):
        quick_trainer().test(task_of(), datamodule=data, verbose=False)


def test_what_the_task_refuses(tmp_path):
    for augment in (None, Augmentation(horizontal_flip=False, erasing=RandomErasing())):
        with pytest.raises(ValueError, match="changes pictures but not their masks"):
            task_of(augment=augment)
    for milestones in ((0.9, 0.5), (0.5, 1.0)):
        with pytest.raises(ValueError, match="milestones must ascend"):
            task_of(milestones=milestones)
    task = task_of(class_names=["cat"])
    with pytest.raises(MisconfigurationException, match="the data has 3 categories"):
        quick_trainer().validate(task, datamodule=shapes(tmp_path), verbose=False)


def test_unreadable_pictures_are_missed(tmp_path):
    data = shapes(tmp_path, max_bad_share=0.9)
    for picture in (data.root / "val").iterdir():
        picture.write_bytes(b"")
    (numbers,) = quick_trainer().validate(task_of(), datamodule=data, verbose=False)
    assert numbers["val/failed_pictures"] == 4
    assert numbers["val/box_AP"] == 0


@pytest.mark.slow
def test_training_finds_shapes(tmp_path):
    """A minute on one core; from random weights, where AP begins at 0."""
    seed_everything(0, verbose=False)
    data = shapes(tmp_path, (48, 12, 1), scale=(0.9, 1.1), num_workers=1)
    augment = Augmentation(horizontal_flip=False, normalize=Normalize(IMAGE_MEAN, IMAGE_STD))
    model = functools.partial(SMALL, embed_dim=24, width=32, box_features=96)
    task = InstanceSegmentationTask(model, lr=2e-3, warmup_epochs=1, augment=augment)
    trainer = quick_trainer(max_epochs=7, check_val_every_n_epoch=7, gradient_clip_val=1.0)
    trainer.fit(task, datamodule=data)
    trainer.validate(task, datamodule=data, verbose=False)
    values = task.results.values()
    assert values["box_AP50"] > 0.05
    assert values["mask_AP50"] > 0.05
