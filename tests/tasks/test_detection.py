"""Loss, boxes that move with their clip, scores, and what the task refuses."""

import functools

import numpy as np
import pytest
import torch
from lightning import Callback
from lightning.fabric.utilities.exceptions import MisconfigurationException

from datamodules.ava.box_table import keyframe_keys
from datamodules.loading.bad_videos import Failure
from datamodules.synthetic_ava import SyntheticAVADataModule
from hiera_video import create_detector
from hiera_video.augment.pipeline import Augmentation
from hiera_video.augment.rand_augment import RandAugment
from hiera_video.callbacks.averaging import ema
from hiera_video.callbacks.detections import DetectionTable
from hiera_video.metrics.ava_boxes import DetectedRows
from hiera_video.tasks.detection import DetectionTask, action_loss
from hiera_video.weights.trained import Classes, classes_of
from tests.models.reference import randomize
from tests.models.small import TINY
from tests.quick_trainer import quick_trainer
from tests.tasks.boxes import IDS, NAMES, BoxData, first_keyframe, make_batch


def network(num_classes):
    model = create_detector("hiera_tiny_16x224", **TINY, num_classes=num_classes)
    randomize(model)
    return model


class Keep(Callback):
    """The last batch as the task gets it, and what the task makes of it."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batch = batch

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.batch, self.rows = batch, outputs


def fit(task, batch=None, **kwargs):
    """Logged numbers and the batch of a step that changes no weight."""
    keep, task.lr, task.min_lr, task.warmup_lr = Keep(), 1e-30, 0, 0
    trainer = quick_trainer(limit_val_batches=0, callbacks=[keep], **kwargs)
    trainer.fit(task, datamodule=BoxData(batch))
    return trainer.callback_metrics, keep.batch


def run_test(task, batch=None, **kwargs):
    """Logged numbers, the batch and its rows."""
    keep = Keep()
    trainer = quick_trainer(callbacks=[keep])
    (numbers,) = trainer.test(task, datamodule=BoxData(batch, **kwargs), verbose=False)
    return numbers, keep.batch, keep.rows


def test_loss_is_the_mean_over_boxes_and_actions():
    task, batch = DetectionTask(network, augment=Augmentation(horizontal_flip=False)), make_batch()
    logged, _ = fit(task, batch)
    with torch.no_grad():
        logits = task.model(task.normalize(batch["video"]), batch["boxes"], batch["box_clip"])
    p, y = logits.double().sigmoid(), batch["box_labels"]
    expected = -(y * p.log() + (1 - y) * (1 - p).log()).mean()
    assert float(logged["train/loss"]) == pytest.approx(float(expected), rel=1e-5)
    assert logged["train/skipped"] == 2


def test_a_batch_without_boxes_trains_nothing():
    task = DetectionTask(network)
    logged, _ = fit(task, make_batch(boxes=0))
    assert logged["train/loss"] == 0
    assert logged["train/grad_norm"] == 0
    assert all((p.grad == 0).all() for p in task.model.parameters())
    assert action_loss(torch.zeros(0, 3), torch.zeros(0, 3)) == 0


def test_boxes_move_with_their_clips():
    clips, side = 16, 64
    video = torch.zeros(clips, 3, 4, side, side, dtype=torch.uint8)
    pixels = []
    for i in range(clips):  # each clip has a white box somewhere
        x1, y1 = 3 * i % 40, 5 * i % 30
        video[i, :, :, y1 : y1 + 20, x1 : x1 + 12 + i % 4] = 255
        pixels.append([x1, y1, x1 + 12 + i % 4, y1 + 20])
    batch = make_batch(boxes=0) | {
        "video": video,
        "seed": torch.arange(clips),
        "boxes": torch.tensor(pixels) / side,
        "box_clip": torch.arange(clips),
        "box_labels": torch.zeros(clips, 3),
    }
    task = DetectionTask(network)
    _, moved = fit(task, batch)
    white = task.training_video(moved)[:, 0, 0] > 0
    flips = moved["augment"].flip
    assert 0 < sum(flips) < clips
    for i, box in enumerate((moved["boxes"] * side).round().long().tolist()):
        places = white[i].nonzero()
        rows, columns = places.unbind(1)
        assert box == [
            *(int(columns.min()), int(rows.min())),
            *(int(columns.max()) + 1, int(rows.max()) + 1),
        ]
        assert (box != pixels[i]) == flips[i] or pixels[i][0] + pixels[i][2] == side


@pytest.mark.parametrize("person_score", [False, True])
def test_scores(person_score):
    task = DetectionTask(network, person_score=person_score)
    _, batch, rows = run_test(task)
    assert torch.equal(batch["boxes"], make_batch()["boxes"])  # which only training moves
    task.eval()
    with torch.no_grad():
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
    task = DetectionTask(lambda num_classes: Says([3.0, -3.0, -3.0]))
    numbers, _, _ = run_test(task, first_keyframe([Failure(1, -1, "damaged")]))
    assert numbers["test/mAP_official"] == pytest.approx(1 / 3)  # of three actions one
    assert numbers["test/failed_keyframes"] == 1
    assert task.results.summary()["per_class"] == {"sit": 1.0, "stand": 0.0, "talk": 0.0}


def test_fewer_actions_can_be_evaluated():
    task = DetectionTask(lambda num_classes: Says([3.0, 9.0, -3.0]))
    _, _, rows = run_test(task, first_keyframe(), evaluated=(1, 80))
    assert rows["scores"].shape == (1, 3)  # for the file all of them
    assert task.results.summary()["per_class"] == {"sit": 1.0, "talk": 0.0}


def test_the_protocols_name_is_in_the_number():
    numbers, _, _ = run_test(DetectionTask(network, protocol="pyslowfast"))
    assert "test/mAP_pyslowfast" in numbers


def test_no_clip_of_a_batch_could_be_decoded():
    batch = {k: v[:0] for k, v in make_batch(boxes=0).items()}
    numbers, _, rows = run_test(DetectionTask(network), batch)
    assert numbers["test/mAP_official"] == 0
    assert {k: tuple(v.shape) for k, v in rows.items()} == {
        "video_id": (0,),
        "second": (0,),
        "boxes": (0, 4),
        "scores": (0, 3),
    }


def test_actions_are_those_of_the_data_and_are_saved(tmp_path):
    task, trainer = DetectionTask(network), quick_trainer(max_epochs=0)
    trainer.fit(task, datamodule=BoxData())
    assert (task.class_names, task.action_ids) == (NAMES, IDS)
    assert task.model.head.projection.out_features == 3
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert classes_of(checkpoint) == (NAMES, IDS)


def test_actions_must_agree_with_those_of_the_data():
    def set_up(class_names=None, action_ids=None, **kwargs):
        task = DetectionTask(network, class_names=class_names, action_ids=action_ids)
        quick_trainer(max_epochs=0).fit(task, datamodule=BoxData(**kwargs))

    set_up(NAMES, IDS)
    with pytest.raises(MisconfigurationException, match="in another order or number"):
        set_up(NAMES, (1, 5, 79))
    with pytest.raises(MisconfigurationException, match="in another order or number"):
        set_up(("stand", "sit", "talk"), IDS)
    with pytest.raises(MisconfigurationException, match="no class names"):
        set_up(names=None, ids=None)


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_boxes_are_not_rounded(precision):
    mixed = precision.replace("true", "mixed")
    trainer = quick_trainer(precision=precision)
    with pytest.raises(MisconfigurationException, match=f"use {mixed}"):
        trainer.fit(DetectionTask(network), datamodule=BoxData())


def test_pictures_that_move_without_their_boxes_are_refused():
    operations = RandAugment()
    with pytest.raises(ValueError, match="rand_augment moves pictures but not their boxes"):
        DetectionTask(network, augment=Augmentation(rand_augment=operations))


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ValueError, match="protocol must be one of official, pyslowfast, not 'x'"):
        DetectionTask(network, protocol="x")


def test_a_head_stays_for_the_same_actions_alone():
    task = DetectionTask(network, class_names=NAMES, action_ids=IDS)
    assert task.same_classes(Classes(NAMES, IDS))
    assert not task.same_classes(Classes(NAMES))  # of a classifier
    assert not task.same_classes(Classes(NAMES, (1, 5, 79)))
    assert not task.same_classes(Classes())


def test_an_average_of_weights_is_evaluated():
    task, data = DetectionTask(network, lr=1e-3), BoxData(evaluated=(1, 80))
    trainer = quick_trainer(max_epochs=2, callbacks=[ema(0.5)])
    trainer.fit(task, datamodule=data)
    in_training = trainer.callback_metrics["val/mAP_official"].item()
    (after,) = trainer.validate(task, datamodule=data, verbose=False)
    assert after["val/mAP_official"] == in_training  # the average stays when training ends
    assert task.normalize(torch.zeros(1, 3, 1, 1, 1)).unique().tolist() == [-2]


def test_trains_and_tests_on_files(tmp_path):
    """Videos in AVA's format; the csv of the test is judged as the test was."""
    arguments = TINY | {"stages": (1, 1, 1, 1), "multi_scale": True}
    clip = {"num_frames": 4, "stride": 8, "size": (64, 64), "short_side": (64, 72)}
    data = SyntheticAVADataModule(tmp_path, (3, 1, 2), 3, 64, **clip, batch_size=2)
    model = functools.partial(create_detector, "hiera_tiny_16x224", **arguments)
    task = DetectionTask(model, lr=1e-3, augment=Augmentation(horizontal_flip=False))
    trainer = quick_trainer(callbacks=[DetectionTable(tmp_path / "run" / "predictions.csv")])
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
    detected = DetectedRows(keys, boxes, action, score.astype(np.float32))
    precision = task.metric("test").annotations.evaluate_rows(detected, "official")
    np.testing.assert_array_equal(precision, task.results.average_precision)
    assert len(rows) == 8 * len(np.unique(np.concatenate([keys[:, None], boxes], 1), axis=0)) > 0
    assert task.results.mean() > 0
