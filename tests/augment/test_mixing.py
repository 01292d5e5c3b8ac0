import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from timm.data import mixup as timm_mixup

from hiera_video.augment.mixing import MixDraw, Mixing, soft_targets

SIZE = (40, 56)
seeds = st.integers(-(2**63), 2**63 - 1)


def draws(count=4000, **options):
    mixing = Mixing(**options)
    return [mixing.draw(torch.tensor([seed, 0]), SIZE) for seed in range(count)]


@given(seeds, st.tuples(st.integers(1, 60), st.integers(1, 60)), st.floats(0.05, 4))
def test_cutmix_keeps_the_share_of_pixels_that_it_says(seed, size, alpha):
    mixing = Mixing(mixup_alpha=0, cutmix_alpha=alpha)
    draw = mixing.draw(torch.tensor([seed, 1]), size)
    video = torch.stack([torch.zeros(3, 2, *size), torch.ones(3, 2, *size)])
    target = torch.eye(2)
    mixed, targets = mixing(video, target, draw)
    kept = (mixed[0] == 0).float().mean()
    assert kept.item() == pytest.approx(draw.lam, abs=1e-6)
    assert targets[0, 0].item() == pytest.approx(draw.lam, abs=1e-6)
    assert torch.equal(mixed[1], 1 - mixed[0])
    assert (mixed == mixed[:, :1, :1]).all()  # one box for all frames


@given(seeds, st.integers(2, 5), st.floats(0.05, 4))
def test_mixup_blends_each_clip_with_its_mirror_in_the_batch(seed, clips, alpha):
    mixing = Mixing(mixup_alpha=alpha, cutmix_alpha=0)
    draw = mixing.draw(torch.tensor([seed] * clips), SIZE)
    generator = torch.Generator().manual_seed(1)
    video = torch.randn(clips, 3, 2, 4, 5, generator=generator)
    target = soft_targets(torch.arange(clips), 7, 0.1)
    before = video.clone(), target.clone()
    mixed, targets = mixing(video, target, draw)
    for i in range(clips):
        j = clips - 1 - i
        expected = draw.lam * video[i] + (1 - draw.lam) * video[j]
        torch.testing.assert_close(mixed[i], expected)
    expected = timm_mixup.mixup_target(torch.arange(clips), 7, draw.lam, 0.1)
    torch.testing.assert_close(targets, expected)
    assert torch.equal(video, before[0])
    assert torch.equal(target, before[1])


@given(st.floats(0, 1), st.tuples(st.integers(1, 90), st.integers(1, 90)), st.data())
def test_the_box_is_that_of_timm(lam, size, data):
    middle = [data.draw(st.integers(0, side - 1)) for side in size]

    class Generator:
        """Draws CutMix with ``lam``, around this middle."""

        def __init__(self, *_):
            self.middles = iter(middle)

        def random(self, count):
            return np.zeros(count)

        def beta(self, *_):
            return lam

        def integers(self, _):
            return next(self.middles)

    middles = iter(middle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("numpy.random.default_rng", Generator)
        patch.setattr("numpy.random.randint", lambda *args, **kwargs: next(middles))
        box, share = timm_mixup.cutmix_bbox_and_lam(size, lam)
        drawn = Mixing().draw(torch.tensor([0, 0]), size)
    assert drawn == MixDraw(pytest.approx(share), box)


def test_shares_and_kinds_are_distributed_as_said():
    drawn = draws()
    cutmix = [draw for draw in drawn if draw.box]
    mixup = np.array([draw.lam for draw in drawn if not draw.box])
    assert len(cutmix) / len(drawn) == pytest.approx(0.5, abs=0.03)
    assert mixup.mean() == pytest.approx(0.5, abs=0.02)
    assert mixup.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.01)
    # Of a frame cut at lam uniform, and more is kept where the box is cut off.
    assert 0.55 < np.mean([draw.lam for draw in cutmix]) < 0.7
    rarely_mixed = draws(probability=0.3)
    assert np.mean([draw.lam != 1 for draw in rarely_mixed]) == pytest.approx(0.3, abs=0.03)
    switched = draws(switch_probability=0.2)
    assert np.mean([draw.box is not None for draw in switched]) == pytest.approx(0.2, abs=0.03)


def test_alpha_0_switches_a_kind_off():
    assert all(draw.box is None and draw.lam != 1 for draw in draws(300, cutmix_alpha=0))
    assert all(draw.box is not None for draw in draws(300, mixup_alpha=0))
    nothing = draws(10, mixup_alpha=0, cutmix_alpha=0) + draws(10, probability=0)
    assert nothing == [MixDraw(1.0, None)] * 20
    video, target = torch.randn(2, 3, 1, 4, 4), torch.eye(2)
    mixed, targets = Mixing()(video, target, nothing[0])
    assert torch.equal(mixed, video)
    assert torch.equal(targets, target)


def test_the_first_seed_decides():
    mixing = Mixing()
    first = mixing.draw(torch.tensor([5, 6, 7]), SIZE)
    assert mixing.draw(torch.tensor([5, 8]), SIZE) == first
    assert mixing.draw(torch.tensor([6, 5]), SIZE) != first


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 1.0])
def test_soft_targets_are_those_of_timm_and_of_smoothed_cross_entropy(smoothing):
    label, logits = torch.tensor([3, 0, 3]), torch.randn(3, 5)
    target = soft_targets(label, 5, smoothing)
    torch.testing.assert_close(target, timm_mixup.mixup_target(label, 5, 1.0, smoothing))
    torch.testing.assert_close(target.sum(1), torch.ones(3))
    torch.testing.assert_close(
        torch.nn.functional.cross_entropy(logits, target),
        torch.nn.functional.cross_entropy(logits, label, label_smoothing=smoothing),
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mixup_alpha": -1}, "mixup_alpha must be at least 0"),
        ({"cutmix_alpha": float("nan")}, "cutmix_alpha must be at least 0"),
        ({"probability": 2}, "probability must be in"),
        ({"switch_probability": -1}, "switch_probability must be in"),
    ],
)
def test_wrong_arguments_are_one_line(wrong, message):
    with pytest.raises(ValueError, match=message):
        Mixing(**wrong)


def test_one_clip_cannot_be_mixed():
    with pytest.raises(ValueError, match="at least 2 clips"):
        Mixing().draw(torch.tensor([1]), SIZE)
