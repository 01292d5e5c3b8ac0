import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.fabric.utilities.apply_func import move_data_to_device

from hiera_video.augment.basic import FLIP_STREAM, Normalize
from hiera_video.augment.erasing import RandomErasing
from hiera_video.augment.mixing import Mixing
from hiera_video.augment.pipeline import Augmentation
from hiera_video.augment.rand_augment import RandAugment
from hiera_video.augment.random import uniform

SIZE = (24, 20)


def everything(semantics="timm"):
    return Augmentation(
        rand_augment=RandAugment(probability=0.9, semantics=semantics), erasing=RandomErasing(0.7)
    )


def clips(count, size=SIZE):
    """As they come from the loader: channels last in memory."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (count, 3, *size, 3), generator=generator, dtype=torch.uint8)
    return frames.permute(0, 4, 1, 2, 3)


def augmented(augmentation, video, seed):
    return augmentation(video, augmentation.draw(seed, tuple(video.shape[-2:])))


@pytest.mark.parametrize("semantics", ["timm", "pytorchvideo"])
@given(data=st.data())
@settings(max_examples=15)
def test_a_clip_does_not_depend_on_its_batch(semantics, data):
    augmentation = everything(semantics)
    seed = torch.tensor(data.draw(st.lists(st.integers(0, 2**63 - 1), min_size=2, max_size=6)))
    order = torch.tensor(data.draw(st.permutations(range(len(seed)))))[: len(seed) - 1]
    video = clips(len(seed))
    whole = augmented(augmentation, video, seed)
    assert torch.equal(augmented(augmentation, video[order], seed[order]), whole[order])
    assert torch.equal(augmented(augmentation, video.contiguous(), seed), whole)
    assert whole.dtype == torch.float32
    assert whole.shape == video.shape
    assert whole.is_contiguous()


def test_nothing_drawn_is_plain_normalisation():
    video = clips(4)
    before = video.clone()
    augmentation = Augmentation(
        horizontal_flip=False,
        rand_augment=RandAugment(probability=0),
        erasing=RandomErasing(probability=0),
    )
    out = augmented(augmentation, video, torch.arange(4))
    assert torch.equal(out, Normalize()(video))
    assert torch.equal(augmented(Augmentation(horizontal_flip=False), video, torch.arange(4)), out)
    augmented(everything(), video, torch.arange(4))
    assert torch.equal(video, before)


def test_whole_clips_are_mirrored_by_their_seed():
    video, seed = clips(40), torch.arange(40) + 2**40
    out, plain = augmented(Augmentation(), video, seed), Normalize()(video)
    flip = uniform(seed, 1, stream=FLIP_STREAM)[:, 0] < 0.5
    assert 10 < flip.sum() < 30
    assert torch.equal(out[flip], plain[flip].flip(-1))
    assert torch.equal(out[~flip], plain[~flip])
    assert not any(Augmentation(horizontal_flip=False).draw(seed, SIZE).flip)


def test_each_part_does_its_work():
    video, seed = clips(40), torch.arange(40)
    plain = augmented(Augmentation(horizontal_flip=False), video, seed)

    def changed(**options):
        out = augmented(Augmentation(**{"horizontal_flip": False} | options), video, seed)
        return int((out != plain).flatten(1).any(1).sum())

    assert changed() == 0
    assert 10 < changed(horizontal_flip=True) < 30
    assert 20 < changed(rand_augment=RandAugment()) < 40
    assert 3 < changed(erasing=RandomErasing()) < 20


def test_erased_boxes_are_normal_after_normalisation():
    augmentation = Augmentation(erasing=RandomErasing(1.0))
    video, seed = clips(6), torch.arange(6)
    draw = augmentation.draw(seed, SIZE)
    assert all(draw.boxes)
    out = augmentation(torch.zeros_like(video), draw)
    box = draw.boxes[0]
    assert box is not None
    inside = out[0, ..., box.top : box.top + box.height, box.left : box.left + box.width]
    assert inside.mean().abs() < 0.5  # zeros are -2 after normalisation
    assert (out[0] == -2).sum() == out[0].numel() - inside.numel()


def test_a_draw_goes_with_the_batch_and_stays_on_the_host():
    video, seed = clips(6), torch.arange(6)
    augmentation, mixing = everything(), Mixing()
    batch = {
        "video": video,
        "draw": augmentation.draw(seed, SIZE),
        "mix": mixing.draw(seed, SIZE),
    }
    moved = move_data_to_device(batch, "cpu")
    assert moved["draw"] == batch["draw"]
    assert moved["mix"] == batch["mix"]
    meta = move_data_to_device(batch, torch.device("meta"))
    assert meta["video"].is_meta
    assert meta["draw"] == batch["draw"]
    assert torch.equal(
        augmentation(moved["video"], moved["draw"]), augmentation(video, batch["draw"])
    )


def test_wrong_input_is_one_line():
    augmentation = Augmentation()
    draw = augmentation.draw(torch.arange(2), SIZE)
    with pytest.raises(ValueError, match="takes uint8 clips, not torch.float32"):
        augmentation(clips(2).float(), draw)
    with pytest.raises(ValueError, match="expected the 2 clips of the draw, not 3"):
        augmentation(clips(3), draw)


@pytest.mark.gpu
@pytest.mark.parametrize("semantics", ["timm", "pytorchvideo"])
def test_cpu_and_gpu_agree(semantics):
    augmentation, mixing = everything(semantics), Mixing()
    seed, video = torch.arange(32), clips(32, (64, 64))
    draw, mix = augmentation.draw(seed, (64, 64)), mixing.draw(seed, (64, 64))
    target = torch.eye(32)
    on_cpu, _ = mixing(augmentation(video, draw), target, mix)
    on_gpu, targets = mixing(augmentation.cuda()(video.cuda(), draw), target.cuda(), mix)
    off = (on_gpu.cpu() - on_cpu).abs()
    # A level is 1 / (255 * 0.225) = 0.017; a second operation can enlarge the difference of one.
    assert (off > 0.02).float().mean() < 0.002
    assert (off > 1e-4).float().mean() < 0.02
    torch.testing.assert_close(targets.cpu(), mixing(on_cpu, target, mix)[1])


@pytest.mark.gpu
@pytest.mark.filterwarnings("ignore:Synchronization debug mode is a prototype")
@pytest.mark.parametrize("rand_augment", [None, RandAugment(probability=1.0)])
def test_the_host_never_waits_for_the_gpu(rand_augment):
    augmentation = Augmentation(rand_augment=rand_augment, erasing=RandomErasing(1.0)).cuda()
    mixing, seed, video = Mixing(), torch.arange(64), clips(64).cuda()
    target = torch.eye(64, device="cuda")
    draw, mix = augmentation.draw(seed, SIZE), mixing.draw(seed, SIZE)
    augmentation(video, draw)  # kernels load
    try:
        torch.cuda.set_sync_debug_mode("error")
        mixing(augmentation(video, draw), target, mix)
    finally:
        torch.cuda.set_sync_debug_mode("default")
