"""The estimate of `doctor` beside what torch allocates in real steps on the CPU."""

from functools import partial

import pytest
import torch
from torch.utils.data import DataLoader

from hiera_video import create_detector, create_mae, create_mask_rcnn, create_model
from hiera_video.augment import Augmentation
from hiera_video.commands.training_memory import GIB, OBJECTS, USABLE, training_memory
from hiera_video.errors import UsageError
from hiera_video.running.training_parts import training_parts
from hiera_video.tasks import (
    ClassificationTask,
    DetectionTask,
    InstanceSegmentationTask,
    PretrainingTask,
    ProbingTask,
)
from tests.allocations import most_allocated
from tests.fake_videos import ColourVideos
from tests.models.conftest import _one_thread  # noqa: F401
from tests.quick_trainer import _quiet_lightning, quick_trainer  # noqa: F401
from tests.tasks.boxes import NAMES, BoxData, make_batch

SIZE = (8, 64, 64)
SMALL = {
    "input_size": SIZE,
    "embed_dim": 16,
    "num_heads": 1,
    "stages": (1, 2, 2, 1),
    "drop_path_rate": 0.2,
}
DECODER = {"decoder_embed_dim": 64, "decoder_depth": 2, "decoder_num_heads": 4}
CLIPS = 12
PICTURES, PICTURE, SAMPLES = 2, (64, 96), 24  # of boxes; a quarter are objects


def classification(**model):
    create = partial(create_model, "hiera_tiny_16x224", **SMALL, **model)
    return ClassificationTask(create)


def pretraining(**model):
    create = partial(create_mae, "hiera_tiny_16x224", **SMALL, **DECODER, **model)
    return PretrainingTask(create, mask_ratio=0.8)


def detection(**model):
    create = partial(create_detector, "hiera_tiny_16x224", **SMALL, **model)
    return DetectionTask(create)


def instances(**model):
    heads = {"width": 24, "box_features": 48, "box_samples": SAMPLES}
    encoder = {**SMALL, "input_size": (64, 64), "embed_dim": 16}
    create = partial(create_mask_rcnn, "hiera_tiny_224", num_classes=3, **encoder, **heads, **model)
    augment = Augmentation(horizontal_flip=False)
    return InstanceSegmentationTask(create, class_names=NAMES, augment=augment)


class ManyObjects(BoxData):
    """Some batches of pictures, each with as many objects as a step learns from."""

    batch_size, category_ids, class_names = PICTURES, (1, 2, 3), NAMES

    def __init__(self):
        count = OBJECTS * PICTURES
        boxes = torch.tensor([[4.0, 8, 64, 48]]).repeat(count, 1)
        super().__init__(
            {
                "video": torch.zeros(PICTURES, 3, 1, *PICTURE, dtype=torch.uint8),
                "seed": torch.arange(PICTURES),
                "picture_size": torch.tensor([PICTURE] * PICTURES),
                "boxes": boxes + torch.arange(count)[:, None] % OBJECTS * 2,
                "box_clip": torch.arange(PICTURES).repeat_interleave(OBJECTS),
                "box_labels": torch.ones(count, dtype=torch.int64),
                "masks": torch.full((count, PICTURE[0], PICTURE[1] // 8), 255, dtype=torch.uint8),
                "failed": [],
            }
        )

    def train_dataloader(self):
        return DataLoader([self.batch] * 4, batch_size=None, collate_fn=dict)


class ManyBoxes(BoxData):
    """Some batches of clips with two boxes each."""

    batch_size = CLIPS

    def __init__(self):
        boxes = torch.tensor([[0.1, 0.2, 0.6, 0.9]]).repeat(2 * CLIPS, 1)
        batch = make_batch() | {
            "video": torch.zeros(CLIPS, 3, *SIZE, dtype=torch.uint8),
            "seed": torch.arange(CLIPS),
            "boxes": boxes,
            "box_clip": torch.arange(CLIPS).repeat(2),
            "box_labels": torch.ones(len(boxes), len(NAMES)),
        }
        super().__init__(batch)

    def train_dataloader(self):
        return DataLoader([self.batch] * 4, batch_size=None, collate_fn=dict)


def data_for(task):
    if isinstance(task, DetectionTask):
        return ManyBoxes()
    clips = {"num_frames": SIZE[0], "size": SIZE[1:], "batch_size": CLIPS, "num_workers": 0}
    return ColourVideos(str(4 * CLIPS), **clips)


def measured_peak(task, data, folder, **kwargs):
    """Bytes of two steps of two batches each: the last has gradients and an optimiser's state."""
    trainer = quick_trainer(accumulate_grad_batches=2, limit_val_batches=0, **kwargs)
    peak = most_allocated(lambda: trainer.fit(task, datamodule=data), folder)
    assert trainer.global_step == 2
    return peak


@pytest.mark.parametrize(
    ("precision", "checkpointing"),
    [
        ("32-true", False),
        ("bf16-mixed", True),
        pytest.param("32-true", True, marks=pytest.mark.slow),
        pytest.param("bf16-mixed", False, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("make", [classification, pretraining, detection])
def test_estimate_is_within_15_percent_of_what_is_allocated(
    make, precision, checkpointing, tmp_path
):
    estimate = training_memory(make(grad_checkpointing=checkpointing), precision, gpu=False)
    task = make(grad_checkpointing=checkpointing)
    measured = measured_peak(task, data_for(task), tmp_path, precision=precision)
    assert estimate.peak(CLIPS) == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(
    ("precision", "checkpointing"),
    [("32-true", False), pytest.param("bf16-mixed", True, marks=pytest.mark.slow)],
)
def test_estimate_of_a_mask_rcnn_is_within_15_percent_of_what_is_allocated(
    precision, checkpointing, tmp_path
):
    make = partial(instances, grad_checkpointing=checkpointing)
    estimate = training_memory(make(), precision, gpu=False, size=PICTURE)
    measured = measured_peak(make(), ManyObjects(), tmp_path, precision=precision)
    assert estimate.peak(PICTURES) == pytest.approx(measured, rel=0.15)


@pytest.mark.parametrize(
    ("checkpointing", "gib"), [(False, 2.82), pytest.param(True, 1.09, marks=pytest.mark.slow)]
)
def test_memory_of_a_picture_of_coco(checkpointing, gib):
    """As docs/coco.md states it; no global block keeps 4,096 x 4,096 attention weights."""
    words = [f"model.grad_checkpointing={checkpointing}"]
    parts = training_parts("coco/base", words)
    memory = training_memory(parts.task, parts.precision, size=parts.size)
    assert (memory.peak(3) - memory.peak(2)) / GIB == pytest.approx(gib, abs=0.01)


@pytest.mark.gpu
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("create", [create_model, create_mae])
def test_estimate_is_within_15_percent_of_what_a_gpu_allocates(create, precision, checkpointing):
    def make():
        network = partial(create, "hiera_tiny_16x224", grad_checkpointing=checkpointing)
        return (ClassificationTask if create is create_model else PretrainingTask)(network)

    clips = {"num_frames": 16, "size": (224, 224), "batch_size": 16, "num_workers": 0}
    trainer = quick_trainer(
        accelerator="gpu", accumulate_grad_batches=2, limit_val_batches=0, precision=precision
    )
    estimate = training_memory(make(), precision)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    trainer.fit(make(), datamodule=ColourVideos("64", **clips))
    measured = torch.cuda.max_memory_allocated() - before
    assert estimate.peak(16) == pytest.approx(measured, rel=0.15)


def test_an_optimizer_has_the_state_that_it_makes():
    adamw = training_memory(classification())
    assert adamw.optimizer == pytest.approx(2 * adamw.gradients, rel=1e-3)
    task = classification()
    task.optimizer = partial(torch.optim.SGD, momentum=0.9)
    assert training_memory(task).optimizer == adamw.gradients
    task.optimizer = torch.optim.SGD
    assert training_memory(task).optimizer == 0


def test_what_devices_share():
    one = training_memory(classification(), averages=True)
    assert one.average == one.weights
    assert one.gathered == 0
    ddp = training_memory(classification(), devices=8)
    assert (ddp.weights, ddp.gradients) == (one.weights, 2 * one.gradients)
    assert ddp.average == 0
    views = training_memory(classification(), devices=8, bucket_view=True)
    assert views.gradients == one.gradients
    sharded = training_memory(classification(), devices=8, sharded=True, averages=True)
    for part in ("weights", "gradients", "optimizer", "average"):
        assert getattr(sharded, part) == getattr(one, part) // 8
    last = create_model("hiera_tiny_16x224", **SMALL).blocks[-1]
    block = sum(parameter.numel() for parameter in last.parameters())
    assert 2 * block * 2 < sharded.gathered < 2 * block * 2 + 0.5 * one.weights / 2
    assert sharded.activations.peak(1) < one.activations.peak(1)  # no copies of weights


def test_the_largest_batch_is_the_largest_that_fits():
    memory = training_memory(classification())
    device = memory.peak(100) / USABLE
    assert memory.most_clips(device * 1.0001) == 100
    assert memory.most_clips(device * 0.9999) == 99
    assert memory.most_clips(memory.weights) == 0


def test_both_half_precisions_take_the_same():
    one, other = (training_memory(pretraining(), name) for name in ("bf16-mixed", "16-mixed"))
    assert one.peak(9) == other.peak(9)


def test_what_cannot_be_estimated_is_an_error():
    with pytest.raises(UsageError, match="what ProbingTask computes is not known here"):
        training_memory(ProbingTask(partial(create_model, "hiera_tiny_16x224")))
    with pytest.raises(UsageError, match="trainer.precision=bf16-true is none of 32-true, "):
        training_memory(classification(), "bf16-true")
