"""Masks, errors and losses of reconstructions; their pictures in general are in test_load.py."""

import numpy as np
import pytest
import torch

from datamodules.clips.format import ClipFormat
from hiera_video.augment.basic import Normalize
from hiera_video.predicting.autoencoder import Reconstructor
from tests.models.conftest import _one_thread  # noqa: F401
from tests.models.small import tiny_mae

CLIP = ClipFormat(4, 2, 30, 64, 64)  # mask units: 2 x 2 x 2, each of 2 frames of 32 x 32


@pytest.fixture(scope="module")
def clip():
    return np.random.default_rng(0).integers(0, 256, CLIP.shape, np.uint8)


def reconstructor(**model):
    torch.manual_seed(0)
    return Reconstructor(tiny_mae(**model), CLIP, mask_ratio=0.5, device="cpu")


def hidden_units(found):
    """bool (2, 2, 2): which units are grey in the picture of what the model saw."""
    grey = (found.masked == 96).all(-1)  # (2, 64, 64)
    cells = grey.reshape(2, 2, 32, 2, 32)  # (time, row, 32, column, 32)
    assert np.array_equal(cells.all((2, 4)), cells.any((2, 4)))
    return cells.all((2, 4))


def test_a_mask_drawn_by_hand_hides_what_is_drawn(clip):
    model = reconstructor()
    drawn = np.zeros((2, 2, 2), bool)
    drawn[0, 1, 0] = drawn[1, 0, 1] = True
    found = model.reconstruct(clip, mask=drawn)
    assert np.array_equal(hidden_units(found), drawn)
    # The same through the model itself.
    video = Normalize()(torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3))
    with torch.inference_mode():
        out = model.model(video, mask=torch.from_numpy(~drawn).reshape(1, 8))
    assert found.loss == pytest.approx(float(out.loss), abs=1e-6)


def test_a_drawing_of_one_time_step_hides_the_same_places_in_all(clip):
    drawn = np.array([[True, False], [False, False]])
    found = reconstructor().reconstruct(clip, mask=drawn)
    assert np.array_equal(hidden_units(found), np.stack([drawn, drawn]))


@pytest.mark.parametrize("mask", ["random", "tube", "block"])
def test_masks_by_name(clip, mask):
    hidden = hidden_units(reconstructor().reconstruct(clip, mask_ratio=0.25, mask=mask))
    assert hidden.sum() == 2
    if mask == "tube":
        assert np.array_equal(hidden[0], hidden[1])


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.ones((2, 2, 2), bool), "0 of 8 mask units would be kept"),
        (np.zeros((2, 2), bool), "8 of 8 mask units would be kept"),
        (np.ones((2, 2, 2)), r"must be bool \(2, 2, 2\) or \(2, 2\), .*, not torch.float64"),
        (np.ones((4, 4), bool), r"not torch.bool \(4, 4\)"),
        ("circles", "mask must be one of random, tube, block, not 'circles'"),
    ],
)
def test_wrong_masks(clip, mask, message):
    with pytest.raises(ValueError, match=message):
        reconstructor().reconstruct(clip, mask=mask)


def test_a_drawing_has_no_ratio(clip):
    with pytest.raises(ValueError, match="leave out mask_ratio"):
        reconstructor().reconstruct(clip, 0.5, mask=np.array([[True, False], [False, False]]))


@pytest.mark.parametrize("target", ["pixels_normalized", "pixels", "hog"])
def test_the_error_of_each_patch(clip, target):
    model = reconstructor(target=target)
    found = model.reconstruct(clip)
    assert np.nanmean(found.error) == pytest.approx(found.loss, rel=1e-5)
    visible = ~hidden_units(found)
    patches = found.error.shape[1] // 2  # along the side of a unit
    visible = visible.repeat(patches, 1).repeat(patches, 2)
    assert np.array_equal(np.isnan(found.error), visible)
    # Of each patch by itself: a model with all other patches perfect has that loss alone.
    with torch.inference_mode():
        video = Normalize()(torch.from_numpy(clip[None]).permute(0, 4, 1, 2, 3))
        out = model.model(video, mask=torch.from_numpy(~hidden_units(found)).reshape(1, 8))
    for row, place in zip(range(out.target.shape[1]), np.argwhere(~visible), strict=True):
        alone = (out.prediction[0, row] - out.target[0, row]).square().mean()
        assert found.error[tuple(place)] == pytest.approx(float(alone), rel=1e-4)


def test_pixel_errors_are_where_the_picture_differs(clip):
    """In pixels, the error of a patch is that of its painted pixels, up to rounding."""
    model = reconstructor(target="pixels")
    grey = np.full_like(clip, 128)  # predictions around 0 are not clipped
    with torch.no_grad():
        model.model.decoder_pred.weight *= 0.1
    found = model.reconstruct(grey)
    difference = (found.prediction / 255.0 - found.original / 255.0) / 0.225
    patch = 64 // found.error.shape[1]
    cells = difference.reshape(2, 64 // patch, patch, 64 // patch, patch, 3)
    squares = (cells**2).mean((2, 4, 5))
    hidden = ~np.isnan(found.error)
    np.testing.assert_allclose(found.error[hidden], squares[hidden], atol=0.05, rtol=0.05)


def test_heat_is_grey_where_visible_and_brightest_at_the_largest_error(clip):
    found = reconstructor().reconstruct(clip)
    heat = found.heat().astype(int)
    visible = np.isnan(found.error).repeat(16, 1).repeat(16, 2)
    assert (np.ptp(heat, axis=-1)[visible] == 0).all()
    coloured = np.ptp(heat, axis=-1) > 0
    assert coloured[~visible].mean() > 0.9
    worst = np.unravel_index(np.nanargmax(found.error), found.error.shape)
    brighter = found.heat(most=10 * float(np.nanmax(found.error))).astype(int)
    t, y, x = worst[0], 16 * worst[1], 16 * worst[2]
    assert np.abs(heat[t, y, x] - brighter[t, y, x]).sum() > 60


def test_losses_are_those_of_single_reconstructions(clip):
    model = reconstructor()
    ratios = (0.25, 0.5, 0.75)
    for mask in (None, "tube", "block"):
        losses = model.losses(clip, ratios, mask, seeds=10)  # more than fit into one pass
        assert losses.shape == (3, 10)
        for row, ratio in zip(losses, ratios, strict=True):
            alone = [model.reconstruct(clip, ratio, seed, mask).loss for seed in range(10)]
            np.testing.assert_allclose(row, alone, rtol=1e-4)


def test_histograms_are_drawn_beside_predictions(clip):
    model = reconstructor(target="hog")
    found = model.reconstruct(clip)
    assert found.rows.shape == (5, 2, 64, 64, 3)
    assert len(found.captions) == 5
    hidden = (found.masked == 96).all(-1)
    assert np.array_equal(found.reconstruction[~hidden], found.histograms[~hidden])
    assert not np.array_equal(found.reconstruction[hidden], found.histograms[hidden])
    assert (found.prediction[~hidden] == 96).all()
    assert np.array_equal(found.prediction[hidden], found.reconstruction[hidden])


def test_sheet_and_player_show_all_rows_and_the_error(clip):
    found = reconstructor().reconstruct(clip)
    assert found.sheet(side=64).size == (100 + 2 * 68, 5 * 68)
    assert found.sheet(side=128).size == (100 + 2 * 132, 5 * 132)
    assert found.player().clips.shape == (5, 2, 64, 64, 3)
    assert found.player().captions[-1].startswith("error, up to ")


def test_a_picture_is_a_clip_of_one_frame():
    torch.manual_seed(0)
    model = Reconstructor(
        tiny_mae(input_size=(64, 64)), ClipFormat(1, 1, 1, 64, 64), mask_ratio=0.5, device="cpu"
    )
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3), np.uint8)
    found = model.reconstruct(picture)
    assert found.error.shape == (1, 4, 4)
    assert np.nanmean(found.error) == pytest.approx(found.loss, rel=1e-5)
    assert found.heat().shape == (1, 64, 64, 3)
    assert found.sheet(side=64).width > 64
    assert len(found.player().clips) == 5
