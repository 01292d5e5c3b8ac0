"""Batches whose frames lie where the workers wrote them."""

import lightning
import pytest
import torch

from datamodules.loading.frame_ring import FrameRing
from datamodules.loading.loader import Loader
from datamodules.loading.sampler import EpochSampler
from tests.datamodules.loading.numbers import Numbers
from tests.quick_trainer import quick_trainer, without_advice

SHAPE = (2, 1, 1, 1, 3)


def fill(ring, number):
    slot = ring.free_slot()
    ring.frames[slot] = number
    return ring.hand_out(slot, len(ring.frames[slot]))


def address(tensor):
    return tensor.untyped_storage().data_ptr()


def test_a_slot_comes_back_with_the_last_tensor_of_it():
    ring = FrameRing(ahead=2, batch_shape=SHAPE)
    first, second = fill(ring, 1), fill(ring, 2)
    slot, part = address(first), first[1:].permute(0, 4, 1, 2, 3)
    others = {ring.free_slot(), ring.free_slot()}
    assert len(others) == 2
    assert ring.free_slot() is None
    del first
    assert ring.free_slot() is None  # a view of it is left
    assert part.unique().tolist() == [1]
    del part
    free = ring.free_slot()
    assert free not in others
    assert ring.frames[free].ctypes.data == slot
    assert second.unique().tolist() == [2]


def test_who_keeps_many_batches_gets_copies():
    ring = FrameRing(ahead=2, batch_shape=SHAPE)
    kept = [fill(ring, number) for number in range(20)]
    assert [batch.unique().item() for batch in kept] == list(range(20))
    in_ring = [
        ring.frames.ctypes.data <= address(batch) < ring.frames.ctypes.data + ring.frames.nbytes
        for batch in kept
    ]
    assert in_ring == [True] * 2 + [False] * 18


def make_loader(length=60, **options):
    return Loader(Numbers(length), EpochSampler(length, training=True), 3, num_workers=4, **options)


def test_batches_that_are_kept_stay_what_they_are():
    for batch in list(make_loader()):
        assert torch.equal(batch["video"][:, 0, 0, 0, 0], batch["video_id"])


class Frames(lightning.LightningModule):
    """Notes where frames lie and whether they are right, and learns nothing."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.addresses = []

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters())

    def training_step(self, batch, _):
        self.addresses.append(address(batch["video"]))
        expected = batch["video_id"].to(torch.uint8)
        assert torch.equal(batch["video"][:, 0, 0, 0, 0], expected)
        return self.weight.sum()


def test_training_copies_no_batch():
    """20 steps see the few slots of the ring alone: it lends as many batches as Lightning keeps."""
    module = Frames()
    with without_advice():
        quick_trainer().fit(module, make_loader())
    assert len(module.addresses) == 20
    distances = torch.tensor(module.addresses) - min(module.addresses)
    assert len(set(module.addresses)) <= 5
    assert distances.max() < 5 * 9


@pytest.mark.gpu
def test_a_slot_waits_for_the_copy_to_the_device():
    """The host is far ahead of the device, which copies late: still every batch is right."""
    loader = make_loader(length=240, pin_memory=True)
    batches = []
    for batch in loader:
        assert batch["video"].is_pinned()
        torch.cuda._sleep(10_000_000)
        batches.append((batch["video"].to("cuda", non_blocking=True), batch["video_id"]))
    for video, video_id in batches:
        assert torch.equal(video[:, 0, 0, 0, 0].cpu(), video_id.to(torch.uint8))
