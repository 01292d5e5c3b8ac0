"""Loss, boxes that move with their clip, scores, and what the task refuses."""

import functools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import Trainer
from lightning.fabric.utilities.exceptions import MisconfigurationException

from datamodules.ava.box_table import BoxTable, keyframe_keys
from datamodules.loading.bad_videos import Failure
from datamodules.synthetic_ava import SyntheticAVADataModule
from hiera_video import create_detector
from hiera_video.augment.pipeline import Augmentation
from hiera_video.augment.rand_augment import RandAugment
from hiera_video.callbacks.detections import DetectionTable
from hiera_video.tasks.detection import DetectionTask, action_loss
from tests.models.reference import randomize
from tests.models.small import TINY

NAMES, IDS = ("sit", "stand", "talk"), (1, 5, 80)


# In the first video someone sits, in the second stands and talks; a third keyframe has nobody.
TRUTH = BoxTable(
    file=Path("truth.csv"),
    names=("a", "b"),
    video=np.array([0, 1, 1, 1]),
    second=np.array([902.0, 903, 903, 904]),
    boxes=np.array([[0.1, 0.2, 0.5, 0.9]] * 3 + [[np.nan] * 4]),
    action=np.array([1, 5, 80, -1]),
    score=np.array([1, np.nan, 3, np.nan]),
    row=np.arange(1, 5),
)


def network(num_classes):
    return create_detector("hiera_tiny_16x224", **TINY, num_classes=num_classes)


def make_task(stage="fit", precision="32-true", names=NAMES, ids=IDS, evaluated=IDS, **kwargs):
    """A task that is set up, with its network, for data with these classes."""
    task = DetectionTask(network, **kwargs)
    data = SimpleNamespace(class_names=names, action_ids=ids, batch_size=2, repeats=1)
    data.evaluated_action_ids = evaluated
    data.splits = {"train": "train", "val": "val", "test": "val"}
    data.ground_truth = lambda split: TRUTH
    # No trainer is needed to ask for its data.
    task._trainer = SimpleNamespace(
        datamodule=data,
        world_size=1,
        accumulate_grad_batches=1,
        precision=precision,
        training=stage == "fit",
        state=SimpleNamespace(fn=stage),
    )
    task.logged = {}
    task.log = lambda name, value, **kwargs: task.logged.update(
        {name: float(torch.as_tensor(value).detach())}
    )
    task.setup(stage)
    task.model = task.network()
    randomize(task.model)
    return task


def make_batch(boxes=3):
    generator = torch.Generator().manual_seed(0)
    corners = torch.rand(boxes, 2, 2, generator=generator).sort(1).values
    return {
        "video": torch.randint(256, (2, 3, 4, 64, 64), dtype=torch.uint8, generator=generator),
        "seed": torch.tensor([3, 4]),
        "video_id": torch.tensor([0, 1]),
        "second": torch.tensor([902, 903]),
        "boxes": corners.flatten(1),
        "box_clip": torch.tensor([1, 0, 1, 1])[:boxes],
        "box_labels": torch.randint(2, (boxes, 3), generator=generator).float(),
        "box_score": torch.linspace(0.5, 1, boxes),
        "boxes_original": torch.tensor([[0.1, 0.2, 0.5, 0.9]]).repeat(boxes, 1),
        "skipped": torch.tensor([0, 2]),
        "failed": [],
    }


def test_loss_is_the_mean_over_boxes_and_actions():
    task, batch = make_task(), make_batch()
    task.augment = Augmentation(horizontal_flip=False)
    loss = task.training_step(task.on_before_batch_transfer(batch, 0), 0)
    logits = task.model(task.normalize(batch["video"]), batch["boxes"], batch["box_clip"])
    p, y = logits.double().sigmoid(), batch["box_labels"]
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    torch.testing.assert_close(loss.double(), expected)
    assert task.logged["train/loss"] == pytest.approx(float(expected.detach()))
    assert task.logged["train/skipped"] == 2


def test_a_batch_without_boxes_trains_nothing():
    task = make_task()
    loss = task.training_step(task.on_before_batch_transfer(make_batch(boxes=0), 0), 0)
    assert loss == 0
    loss.backward()
    assert all((p.grad == 0).all() for p in task.model.parameters())
    assert action_loss(torch.zeros(0, 3), torch.zeros(0, 3)) == 0


def test_boxes_move_with_their_clips():
    task = make_task()
    clips, side = 16, 64
    video = torch.zeros(clips, 3, 2, side, side, dtype=torch.uint8)
    pixels = []
    for i in range(clips):  # each clip has a white box somewhere
        x1, y1 = 3 * i % 40, 5 * i % 30
        video[i, :, :, y1 : y1 + 20, x1 : x1 + 12 + i % 4] = 255
        pixels.append([x1, y1, x1 + 12 + i % 4, y1 + 20])
    batch = {
        "video": video,
        "seed": torch.arange(clips),
        "boxes": torch.tensor(pixels) / side,
        "box_clip": torch.arange(clips),
    }
    moved = task.on_before_batch_transfer(batch, 0)
    seen = task.training_video(moved)[:, 0, 0] > 0
    flips = moved["augment"].flip
    assert 0 < sum(flips) < clips
    for i, box in enumerate((moved["boxes"] * side).round().long().tolist()):
        white = seen[i].nonzero()
        found = [*white.min(0).values.tolist()[::-1], *(white.max(0).values + 1).tolist()[::-1]]
        assert box == found
        assert (box != pixels[i]) == flips[i] or pixels[i][0] + pixels[i][2] == side


def test_boxes_stay_in_evaluation():
    task, batch = make_task("test"), make_batch()
    boxes = batch["boxes"].clone()
    assert torch.equal(task.on_before_batch_transfer(batch, 0)["boxes"], boxes)


@torch.no_grad()
@pytest.mark.parametrize("person_score", [False, True])
def test_scores(person_score):
    task, batch = make_task("test", person_score=person_score), make_batch()
    task.eval()
    rows = task.test_step(batch, 0)
    logits = task.model(task.normalize(batch["video"]), batch["boxes"], batch["box_clip"])
    factor = torch.tensor([0.5, 0.75, 1.0])[:, None] if person_score else 1
    torch.testing.assert_close(rows["scores"], logits.sigmoid() * factor)
    assert rows["video_id"].tolist() == [1, 0, 1]
    assert rows["second"].tolist() == [903, 902, 903]
    assert torch.equal(rows["boxes"], batch["boxes_original"])


class Says(torch.nn.Module):
    """A network that gives fixed logits to the boxes of a batch."""

    def __init__(self, *rows):
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, video, boxes, box_clip):
        return self.rows[: len(boxes)]


def test_map_counts_keyframes_that_were_never_seen():
    """One right box of the first keyframe; the second could not be decoded."""
    task = make_task("test")
    task.model = Says([3.0, -3.0, -3.0])
    batch = make_batch()
    some = {k: v[1:2] for k, v in batch.items() if k.startswith("box")}
    batch |= some | {"failed": [Failure(1, -1, "damaged")]}
    task.test_step(batch, 0)
    task.on_test_epoch_end()
    assert task.logged["test/mAP_official"] == pytest.approx(1 / 3)  # of three actions one
    assert task.logged["test/failed_keyframes"] == 1
    assert task.results.summary()["per_class"] == {"sit": 1.0, "stand": 0.0, "talk": 0.0}
    task.on_test_epoch_end()
    assert task.logged["test/mAP_official"] == 0  # begins anew


def test_fewer_actions_can_be_evaluated():
    task = make_task("test", evaluated=(1, 80))
    task.model = Says([3.0, 9.0, -3.0])
    batch = make_batch()
    batch |= {k: v[1:2] for k, v in batch.items() if k.startswith("box")}
    assert task.test_step(batch, 0)["scores"].shape == (1, 3)  # for the file all of them
    task.on_test_epoch_end()
    assert task.results.summary()["per_class"] == {"sit": 1.0, "talk": 0.0}


def test_the_protocols_name_is_in_the_number():
    task = make_task("validate", protocol="pyslowfast")
    task.on_validation_epoch_end()
    assert task.logged["val/mAP_pyslowfast"] == 0


def test_no_clip_of_a_batch_could_be_decoded():
    task, batch = make_task("test"), make_batch(boxes=0)
    empty = {k: v[:0] for k, v in batch.items() if k != "failed"} | {"failed": []}
    rows = task.test_step(empty, 0)
    assert {k: tuple(v.shape) for k, v in rows.items()} == {
        "video_id": (0,),
        "second": (0,),
        "boxes": (0, 4),
        "scores": (0, 3),
    }


def test_actions_are_those_of_the_data_and_must_agree():
    task = make_task()
    assert (task.class_names, task.action_ids) == (NAMES, IDS)
    assert task.model.head.projection.out_features == 3
    checkpoint = {}
    task.on_save_checkpoint(checkpoint)
    assert checkpoint == {"class_names": list(NAMES), "action_ids": list(IDS)}
    make_task(class_names=NAMES, action_ids=IDS)
    with pytest.raises(MisconfigurationException, match="in another order or number"):
        make_task(class_names=NAMES, action_ids=(1, 5, 79))
    with pytest.raises(MisconfigurationException, match="in another order or number"):
        make_task(class_names=("stand", "sit", "talk"), action_ids=IDS)
    with pytest.raises(MisconfigurationException, match="no class names"):
        make_task(names=None, ids=None)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_boxes_are_not_rounded(precision):
    mixed = precision.replace("true", "mixed")
    with pytest.raises(MisconfigurationException, match=f"use {mixed}"):
        make_task(precision=precision)


def test_pictures_that_move_without_their_boxes_are_refused():
    operations = RandAugment()
    with pytest.raises(ValueError, match="rand_augment moves pictures but not their boxes"):
        DetectionTask(network, augment=Augmentation(rand_augment=operations))


def test_a_head_stays_for_the_same_actions_alone():
    task = make_task()
    said = {"class_names": list(NAMES), "action_ids": list(IDS)}
    assert task.same_classes(said)
    assert not task.same_classes({"class_names": list(NAMES)})  # of a classifier
    assert not task.same_classes(said | {"action_ids": [1, 5, 79]})
    assert not task.same_classes({})


# Lightning 2.6 with torch 2.13; and it would rather have more workers than two videos need.
@pytest.mark.filterwarnings("ignore:.*LeafSpec.* is deprecated")
@pytest.mark.filterwarnings("ignore:.*does not have many workers")
@pytest.mark.filterwarnings("ignore:You have overridden `on_before_batch_transfer`")
@pytest.mark.filterwarnings("ignore:.*number of training batches")
def test_trains_and_tests_on_files(tmp_path):
    """Videos in AVA's format; the csv of the test is judged as the test was."""
    arguments = TINY | {"stages": (1, 1, 1, 1), "multi_scale": True}
    clip = {"num_frames": 4, "stride": 8, "size": (64, 64), "short_side": (64, 72)}
    data = SyntheticAVADataModule(tmp_path, (3, 1, 2), 3, 64, **clip, batch_size=2)
    model = functools.partial(create_detector, "hiera_tiny_16x224", **arguments)
    task = DetectionTask(model, lr=1e-3, augment=Augmentation(horizontal_flip=False))
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        callbacks=[DetectionTable(tmp_path / "run" / "predictions.csv")],
    )
    trainer.fit(task, datamodule=data)
    assert "val/mAP_official" in trainer.callback_metrics
    assert trainer.callback_metrics["train/loss"].isfinite()
    trainer.test(task, datamodule=data, verbose=False)
    text = (tmp_path / "run" / "predictions.csv").read_text()
    rows = [line.split(",") for line in text.splitlines()]
    names = data.video_names("test")
    boxes = np.array([row[2:6] for row in rows], np.float64)
    action, score = (
        np.array([row[6] for row in rows], int),
        np.array([row[7] for row in rows], float),
    )
    keys = keyframe_keys(
        np.array([names.index(row[0]) for row in rows]), np.array([float(row[1]) for row in rows])
    )
    found = task.metrics["test_map"].annotations.evaluate_rows(
        keys, boxes, action, score.astype(np.float32), "official"
    )
    np.testing.assert_array_equal(found, task.results.average_precision)
    assert len(rows) == 8 * len(np.unique(np.concatenate([keys[:, None], boxes], 1), axis=0)) > 0
    assert task.results.mean() > 0
