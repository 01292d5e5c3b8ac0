import pytest
import torch

from hiera_video.models.targets import PixelTarget
from hiera_video.models.zoo import create_mae
from tests.models.reference import make_video, randomize
from tests.models.small import TINY, tiny_mae
from tests.models.units import pixels_of_units

KEPT = torch.tensor([[0, 3, 5], [6, 2, 7]])


def image_mae(**kwargs):
    mae = create_mae(
        "hiera_tiny_224",
        **{**TINY, "input_size": (96, 64), "decoder_embed_dim": 32, "decoder_depth": 1, **kwargs},
    )
    randomize(mae)
    return mae


def equal_outputs(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize(
    ("name", "units", "ratio", "kept"),
    [
        ("hiera_base_16x224", 392, None, 39),
        ("hiera_base_16x224", 392, 0.9, 39),
        ("hiera_base_16x224", 392, 0.75, 98),
        ("hiera_base_16x224", 392, 0.95, 19),
        ("hiera_base_224", 49, None, 19),
        ("hiera_base_224", 49, 0.6, 19),
    ],
)
def test_number_of_kept_units(name, units, ratio, kept):
    with torch.device("meta"):
        mae = create_mae(name)
    assert mae.num_units == units
    assert mae.num_kept(ratio) == kept


def test_kept_units_are_counted_as_in_the_published_code():
    """In floating point, 40 * (1 - 0.9) is below 4."""
    with torch.device("meta"):
        mae = create_mae("hiera_tiny_16x224", **{**TINY, "input_size": (2, 32, 32 * 40)})
    assert mae.num_units == 40
    assert mae.num_kept(0.9) == int(40 * (1 - 0.9)) == 3


@pytest.mark.parametrize("ratio", [0.0, 1.0, -0.5, 1.5])
def test_mask_ratio_out_of_range(ratio):
    with pytest.raises(ValueError, match="mask_ratio must be in"):
        tiny_mae().num_kept(ratio)


def test_published_shapes():
    with torch.device("meta"):
        mae = create_mae("hiera_base_16x224", stages=(1, 1, 1, 1), decoder_depth=1)
        out = mae(torch.empty(2, 3, 16, 224, 224))
    assert mae.unit_grid == (8, 7, 7)
    assert out.loss.shape == ()
    assert out.prediction.shape == out.target.shape == (2, 1568 - 4 * 39, 768)
    assert out.mask.shape == (2, 392)
    assert out.predicted.shape == (2, 1568)
    assert [b.attn.heads for b in mae.decoder_blocks] == [8]
    with torch.device("meta"):
        image = create_mae("hiera_base_224", decoder_depth=1)
    assert [b.attn.heads for b in image.decoder_blocks] == [16]


@pytest.mark.parametrize("build", [tiny_mae, image_mae])
def test_output(build):
    mae = build()
    video = make_video(mae, 3)
    out = mae(video, 0.5, generator=torch.Generator().manual_seed(0))
    per_unit = mae.num_predictions // mae.num_units
    assert out.mask.sum(dim=1).tolist() == [mae.num_units // 2] * 3
    assert out.predicted.sum(dim=1).tolist() == [out.prediction.shape[1]] * 3
    assert out.prediction.shape[1] == per_unit * mae.num_units // 2
    assert out.loss.dtype == torch.float32
    torch.testing.assert_close(out.loss, (out.prediction - out.target).square().mean())
    assert len(out.mask.unique(dim=0)) > 1  # each sample has its own mask


def test_random_mask_is_the_generators():
    mae = tiny_mae()
    video = make_video(mae, 4)
    first, same, other = (
        mae(video, 0.5, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)
    )
    assert equal_outputs(first, same)
    assert not torch.equal(first.mask, other.mask)


def test_masks_of_all_forms_are_equal():
    mae = tiny_mae()
    video = make_video(mae, 2)
    mask = torch.zeros(2, mae.num_units, dtype=torch.bool).scatter(1, KEPT, True)
    out = mae(video, mask=mask)
    assert torch.equal(out.mask, mask)
    assert equal_outputs(out, mae(video, mask=KEPT))
    assert equal_outputs(out, mae(video, mask=KEPT.flip(1)))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mask": torch.eye(8)[:2] > 2}, "0 of 8 mask units would be kept"),
        ({"mask": torch.eye(8)[:2] < 2}, "8 of 8 mask units would be kept"),
        ({"mask": torch.arange(8).repeat(2, 1) < torch.tensor([[1], [3]])}, r"not \[1, 3\]"),
        ({"mask": torch.ones(2, 7) > 0}, "must have 8 units a row, not 7"),
        ({"mask": torch.ones(3, 8) > 0}, "mask must be bool .2, 8. or int64"),
        ({"mask": torch.ones(2, 8)}, "mask must be bool .* got torch.float32"),
        ({"mask": KEPT.int()}, "or int64 indices"),
        ({"mask": KEPT[:, :0]}, "0 of 8 mask units"),
        ({"mask": KEPT, "mask_ratio": 0.5}, "mask_ratio or mask, not both"),
        ({"mask_ratio": 0.95}, "0 of 8 mask units would be kept"),
    ],
)
def test_wrong_masks(keywords, message):
    mae = tiny_mae()
    with pytest.raises(ValueError, match=message):
        mae(make_video(mae, 2), **keywords)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="target must be one of pixels_normalized, pixels, hog"):
        tiny_mae(target="sound")
    with pytest.raises(ValueError, match="32 channels do not divide into 5 heads"):
        tiny_mae(decoder_num_heads=5)
    with pytest.raises(ValueError, match="-8 channels do not divide into 4 heads"):
        tiny_mae(decoder_embed_dim=-8)
    with pytest.raises(ValueError, match="decoder_depth must be at least 0, not -1"):
        tiny_mae(decoder_depth=-1)
    mae = tiny_mae()
    with pytest.raises(ValueError, match=r"expected .* \(B, 3, 4, 64, 64\)"):
        mae(torch.zeros(2, 3, 64, 64))


@pytest.mark.parametrize("junk", [5.0, float("nan")])
def test_hidden_pixels_are_not_seen(junk):
    """Whatever stands in hidden units, predictions are the same."""
    mae = tiny_mae()
    video = make_video(mae, 2)
    out = mae(video, mask=KEPT)
    seen = pixels_of_units(out.mask, mae.unit_grid, video)
    other = torch.where(seen, video, junk)
    assert not torch.equal(other, video)
    assert torch.equal(mae(other, mask=KEPT).prediction, out.prediction)


def test_hidden_units_are_those_of_the_mask():
    """Units in raster order, time slowest; a hidden unit hides its own pixels alone."""
    mae = tiny_mae()
    units = torch.tensor([[0, 1, 2, 3, 4, 5, 7]])  # not second in time, second row, first column
    video = make_video(mae, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(mae.embed(video, units).square().sum(), video)
    expected = torch.ones(4, 64, 64, dtype=torch.bool)
    expected[2:, 32:, :32] = False
    assert torch.equal(gradient[0].ne(0).any(0), expected)


def test_predicted_places_are_those_of_hidden_units():
    mae = tiny_mae()
    out = mae(make_video(mae, 2), mask=KEPT)
    grid = out.predicted.view(2, 2, 4, 4)  # (B, T', H', W'): each unit has 1x2x2 predictions
    units = out.mask.view(2, 2, 2, 2)
    for (b, t, y, x), value in ((i, grid[tuple(i)]) for i in torch.ones_like(grid).nonzero()):
        assert value == ~units[b, t, y // 2, x // 2]


def test_decoding_all_that_is_hidden_is_the_default():
    mae = tiny_mae()
    video = make_video(mae, 2)
    out = mae(video, mask=KEPT)
    places = torch.arange(32).expand(2, -1)[out.predicted].view(2, -1)
    again = mae(video, mask=KEPT, decoded=places)
    assert torch.equal(again.predicted, out.predicted)
    torch.testing.assert_close(again.prediction, out.prediction)
    torch.testing.assert_close(again.loss, out.loss)


def test_a_decoder_sees_no_more_than_it_is_to():
    """Of the hidden patches only the decoded ones: the others' positions get no gradient."""
    mae = tiny_mae()
    video = make_video(mae, 2)
    full = mae(video, mask=KEPT)
    decoded = torch.tensor([[6, 7], [0, 20]])
    assert full.predicted.gather(1, decoded).all()
    out = mae(video, mask=KEPT, decoded=decoded)
    assert out.prediction.shape == (2, 2, full.prediction.shape[2])
    assert out.predicted.nonzero()[:, 1].tolist() == decoded.flatten().tolist()
    torch.testing.assert_close(out.target[1, 0], full.target[1, 0])
    for sample in range(2):
        loss = out.prediction[sample].square().sum()
        (gradient,) = torch.autograd.grad(loss, mae.decoder_pos_embed, retain_graph=True)
        seen = ~full.predicted[sample] | out.predicted[sample]
        assert torch.equal(gradient[0].abs().sum(dim=1) > 0, seen)
    painted = mae.reconstruct(video, out)
    assert (painted != video)[0].sum() <= 2 * 3 * 16 * 16


def test_target_frames_and_order():
    """First frame of each two; (h, w, c) for videos, (c, h, w) for images."""
    video = torch.arange(2 * 3 * 4 * 32 * 32).reshape(2, 3, 4, 32, 32).float()
    where = torch.tensor([[0, 7], [3, 4]])  # of 2x2x2 patches
    patches = PixelTarget((16, 16), 2, 3, normalized=False)(video, where)
    last = video[0, :, 2, 16:, 16:]  # patch 7: second token, from frame 2
    assert torch.equal(patches[0, 1], last.permute(1, 2, 0).flatten())
    assert torch.equal(patches[1, 0], video[1, :, 0, 16:, 16:].permute(1, 2, 0).flatten())
    images = PixelTarget((16, 16), None, 3, normalized=False)(video[:, :, 0], where % 4)
    assert torch.equal(images[1, 1], video[1, :, 0, :16, :16].flatten())


def test_normalized_target():
    video = 40 + 9 * torch.randn(2, 3, 4, 32, 32)
    target = PixelTarget((16, 16), 2, 3, normalized=True)(video, torch.tensor([[0, 5], [1, 2]]))
    torch.testing.assert_close(target.mean(-1), torch.zeros(2, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(-1), torch.ones(2, 2))


@pytest.mark.parametrize("target", ["pixels_normalized", "pixels"])
@pytest.mark.parametrize("build", [tiny_mae, image_mae])
def test_reconstruction_from_targets_is_the_video(build, target):
    mae = build(target=target)
    video = make_video(mae, 2)
    out = mae(video, 0.5)
    painted = mae.reconstruct(video, out._replace(prediction=out.target))
    torch.testing.assert_close(painted, video, atol=1e-5, rtol=0)


@pytest.mark.parametrize("target", ["pixels_normalized", "pixels"])
def test_reconstruction_paints_hidden_first_frames_alone(target):
    mae = tiny_mae(target=target)
    video = make_video(mae, 2)
    before = video.clone()
    out = mae(video, mask=KEPT)
    painted = mae.reconstruct(video, out)
    hidden = ~pixels_of_units(out.mask, mae.unit_grid, video).expand_as(video).clone()
    hidden[:, :, 1::2] = False
    assert torch.equal(video, before)
    assert torch.equal(painted == video, ~hidden)
    assert painted.dtype == video.dtype
    half = mae.reconstruct(video.bfloat16(), out)
    assert half.dtype == torch.bfloat16


def test_reconstruction_has_the_statistics_of_the_patch():
    mae = tiny_mae()
    video = 3 + 2 * make_video(mae, 1)
    out = mae(video, mask=KEPT[:1])
    flat = out._replace(prediction=torch.zeros_like(out.prediction))
    painted = mae.reconstruct(video, flat)[0, :, 0, :16, 48:]  # unit 1 is hidden
    expected = video[0, :, 0, :16, 48:].mean()
    torch.testing.assert_close(painted, expected.expand_as(painted))


def test_other_pools():
    """Without pooling a prediction is 4 pixels; with all three, 32."""
    for q_pool, patch in ((0, 4), (1, 8), (3, 32)):
        mae = tiny_mae(q_pool=q_pool)
        video = make_video(mae, 2)
        out = mae(video, mask=KEPT)
        assert out.prediction.shape == (2, 5 * (32 // patch) ** 2, 3 * patch**2)
        painted = mae.reconstruct(video, out._replace(prediction=out.target))
        torch.testing.assert_close(painted, video, atol=1e-5, rtol=0)


def test_pools_along_time():
    """A prediction that covers four frames is of the first of them."""
    strides = {"q_stride": (2, 2, 2), "q_pool": 1, "mask_unit_size": (2, 8, 8)}
    mae = tiny_mae(input_size=(8, 64, 64), **strides)
    video = make_video(mae, 1)
    out = mae(video, mask=KEPT[:1])
    changed = mae.reconstruct(video, out) != video
    assert changed.any(dim=(0, 1, 3, 4)).tolist() == [f % 4 == 0 for f in range(8)]


def test_fusion_sums_in_single_precision():
    """Under autocast, what the last stage alone has is not rounded by the sum."""
    mae = tiny_mae()
    for head in mae.multi_scale_fusion_heads:
        head.weight.data.zero_()
        head.bias.data.fill_(1000.0)  # next to it, bfloat16 cannot hold the last stage
    mae.encoder_norm.reset_parameters()
    video = make_video(mae, 2)
    with torch.autocast("cpu", torch.bfloat16):
        fused = mae.encode_fused(video, KEPT.sort().values)
    expected = mae.encode_fused(video, KEPT.sort().values)
    assert torch.corrcoef(torch.stack([fused.flatten(), expected.flatten()]))[0, 1] > 0.99
