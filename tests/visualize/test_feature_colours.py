"""Features as colours: their main directions, beside those of a singular value decomposition."""

import numpy as np
import pytest

from hiera_video.visualize import principal_colours, stage_sheet
from hiera_video.visualize.feature_colours import stage_pictures


def test_each_colour_is_a_main_direction_of_the_features():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(4, 6, 5, 16)) * np.linspace(8, 1, 16) + 3
    colours = principal_colours(features).reshape(-1, 3).astype(float)
    flat = features.reshape(-1, 16)
    directions = np.linalg.svd(flat - flat.mean(0), full_matrices=False)[2][:3]
    scores = (flat - flat.mean(0)) @ directions.T
    for colour, score in zip(colours.T, scores.T, strict=True):
        inside = (colour > 0) & (colour < 255)
        assert abs(np.corrcoef(colour[inside], score[inside])[0, 1]) > 0.999
        assert colour.mean() == pytest.approx(127.5, abs=3)
        assert colour.std() > 40


def test_two_kinds_of_features_get_two_colours():
    features = np.where(np.arange(8)[:, None] < 4, [1.0, 0, 0, 2], [0, 3.0, 0, 0])
    colours = principal_colours(features)
    assert len({tuple(c) for c in colours.tolist()}) == 2
    assert (colours[:4] == colours[0]).all()
    assert (colours[:, 1:] == 128).all()  # nothing differs in other directions


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_few_channels_and_equal_features(channels):
    assert (
        principal_colours(np.ones((2, 3, 3, channels))).tolist()
        == np.full((2, 3, 3, 3), 128).tolist()
    )
    assert principal_colours(np.random.default_rng(0).normal(size=(7, channels))).shape == (7, 3)


def test_a_stage_is_shown_under_the_frames_of_its_tokens():
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (4, 32, 48, 3), np.uint8)
    maps = [rng.normal(size=(2, 8, 12, 16)), rng.normal(size=(2, 2, 3, 32))]
    pictures = stage_pictures(clip, maps)
    assert pictures.shape == (3, 2, 32, 48, 3)
    assert np.array_equal(pictures[0], clip[::2])
    blocks = pictures[2].reshape(2, 2, 16, 3, 16, 3)
    assert (blocks == blocks[:, :, :1, :, :1]).all()
    assert np.array_equal(blocks[:, :, 0, :, 0], principal_colours(maps[1]))
    assert stage_sheet(clip, maps).size == (100 + 2 * (4 * 48 + 4), 3 * (4 * 32 + 4))
