"""Resizing position embeddings."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video.models.architecture import geometry
from hiera_video.weights.positions import (
    compose,
    resize_joint,
    resize_space,
    resize_time,
    resized_positions,
)

UNIT = (8, 8)


def embedding(places, dim=4, seed=0):
    return torch.randn(1, places, dim, generator=torch.Generator().manual_seed(seed))


def within(value, grid, unit=UNIT):
    """Mean over mask units, unit by unit: ``(h, w, C)``."""
    x = value[0].reshape(*grid, -1).double().numpy()
    h, w = unit
    units = [x[i : i + h, j : j + w] for i in range(0, grid[0], h) for j in range(0, grid[1], w)]
    return np.mean(units, axis=0)


def naive(value, source, target):
    x = value.transpose(1, 2).unflatten(2, source)
    return F.interpolate(x, target, mode="bicubic").flatten(2).transpose(1, 2)


def test_from_224_to_256_the_part_within_windows_stays_and_naively_it_does_not():
    value = embedding(56 * 56)
    resized = resize_space(value, (56, 56), (64, 64), UNIT)
    assert resized.shape == (1, 64 * 64, 4)
    expected = within(value, (56, 56))
    assert np.abs(within(resized, (64, 64)) - expected).max() <= 1e-6
    stretched = naive(value, (56, 56), (64, 64))
    assert np.abs(within(stretched, (64, 64)) - expected).max() > 0.1


def test_a_pattern_that_repeats_stays_itself():
    tile = torch.randn(1, 4, *UNIT)
    small = tile.tile(7, 7).flatten(2).transpose(1, 2)
    large = tile.tile(9, 3).flatten(2).transpose(1, 2)
    torch.testing.assert_close(resize_space(small, (56, 56), (72, 24), UNIT), large)


def test_what_is_smooth_over_the_picture_stays_smooth():
    # No pattern within windows: half a wave over the picture, finer than before.
    def wave(n):
        return torch.cos(torch.pi * (torch.arange(n) + 0.5) / n)

    value = (wave(56)[:, None] * wave(56)).reshape(1, -1, 1)
    resized = resize_space(value, (56, 56), (112, 112), UNIT)
    # Within a unit the mean of this wave is 0, up to what the middle unit has.
    expected = (wave(112)[:, None] * wave(112)).reshape(1, -1, 1)
    assert (resized - expected).abs().max() < 0.02


@settings(max_examples=40)
@given(
    *(st.tuples(st.integers(1, 4), st.integers(1, 4)) for _ in range(2)),
    st.sampled_from([(8, 8), (4, 4), (2, 4)]),
)
def test_any_grid(source_units, target_units, unit):
    source, target = (
        tuple(n * u for n, u in zip(units, unit, strict=True))
        for units in (source_units, target_units)
    )
    value = embedding(source[0] * source[1], 2).double()
    resized = resize_space(value, source, target, unit)
    assert resized.shape == (1, target[0] * target[1], 2)
    assert resized.dtype == value.dtype
    np.testing.assert_allclose(
        within(resized, target, unit), within(value, source, unit), atol=1e-9
    )
    back = resize_space(resized, target, source, unit)
    assert back.shape == value.shape
    np.testing.assert_allclose(within(back, source, unit), within(value, source, unit), atol=1e-9)
    if source == target:
        torch.testing.assert_close(resized, value)


def test_a_grid_without_whole_units_is_refused():
    with pytest.raises(ValueError, match="12x16 tokens have no whole mask units of 8x8"):
        resize_space(embedding(12 * 16), (12, 16), (16, 16), UNIT)


def test_twice_the_frames():
    value = embedding(8)
    resized = resize_time(value, 16)
    # Steps of half the length: their middles are a quarter of a step beside the old ones.
    torch.testing.assert_close(resized[:, 3], value[:, 1] * 0.75 + value[:, 2] * 0.25)
    torch.testing.assert_close(resized[:, 4], value[:, 1] * 0.25 + value[:, 2] * 0.75)
    torch.testing.assert_close(resized[:, [0, -1]], value[:, [0, -1]])


def test_joint_embedding_is_resized_along_each_axis():
    value = embedding(8 * 14 * 14)
    resized = resize_joint(value, (8, 14, 14), (16, 16, 16))
    assert resized.shape == (1, 16 * 16 * 16, 4)
    space = F.interpolate(
        value[0].unflatten(0, (8, 14, 14)).permute(0, 3, 1, 2).double(),
        (16, 16),
        mode="bicubic",
        antialias=True,
    )
    expected = resize_time(space.flatten(1)[None], 16)[0].unflatten(1, (4, 16, 16))
    torch.testing.assert_close(
        resized[0].unflatten(0, (16, 16, 16)).movedim(-1, 1), expected.float()
    )
    same_time = resize_joint(value, (8, 14, 14), (8, 16, 16))
    torch.testing.assert_close(same_time[0].unflatten(0, (8, 16, 16)).movedim(-1, 1), space.float())


def test_two_parts_are_one():
    across, window = torch.randn(1, 4, 5, 5), torch.randn(1, 4, 8, 8)
    composed = compose(across, window, (16, 24), antialias=False)
    stretched = F.interpolate(across, (16, 24), mode="bicubic")
    for y, x in [(0, 0), (9, 23), (15, 8)]:
        expected = stretched[0, :, y, x] + window[0, :, y % 8, x % 8]
        torch.testing.assert_close(composed[0, y * 24 + x], expected)


def video(height, width, frames=16):
    shape = geometry((frames, height, width), q_pool=2)
    t, h, w = shape.tokens
    decoder = t * (h // 4) * (w // 4)
    places = {"pos_embed_spatial": h * w, "pos_embed_temporal": t, "decoder_pos_embed": decoder}
    return shape, {name: embedding(n) for name, n in places.items()}


def sizes(weights):
    return {name: value.shape[1] for name, value in weights.items()}


def test_all_embeddings_of_a_video_model():
    shape, own = video(256, 256, 32)
    _, file = video(224, 224)
    expected = {"pos_embed_spatial": 64 * 64, "pos_embed_temporal": 16}
    assert sizes(resized_positions(file, own, shape)) == {
        **expected,
        "decoder_pos_embed": 16 * 16 * 16,
    }
    del own["decoder_pos_embed"]  # of a classifier
    assert sizes(resized_positions(file, own, shape)) == expected
    assert resized_positions(own, own, shape) == {}


def test_grid_of_the_file():
    shape, own = video(96, 128)
    _, other = video(96, 160)
    _, turned = video(128, 96)
    with pytest.raises(ValueError, match="960 tokens, which make no square.* model has 24x32"):
        resized_positions(other, own, shape)
    resized = resized_positions(other, own, shape, (16, 96, 160))
    expected = resize_space(other["pos_embed_spatial"], (24, 40), (24, 32), UNIT)
    torch.testing.assert_close(resized["pos_embed_spatial"], expected)
    # As many tokens, which make no square: taken for the same grid unless the file says otherwise.
    assert resized_positions(turned, own, shape) == {}
    resized = resized_positions(turned, own, shape, (16, 128, 96))
    expected = resize_space(turned["pos_embed_spatial"], (32, 24), (24, 32), UNIT)
    torch.testing.assert_close(resized["pos_embed_spatial"], expected)
    assert "decoder_pos_embed" in resized


def test_as_many_tokens_as_a_square_and_as_the_model():
    shape, own = video(32, 128)
    _, square = video(64, 64)
    with pytest.raises(ValueError, match="256 tokens, 16x16 or, as the model, 8x32, and the f"):
        resized_positions(square, own, shape)
    resized = resized_positions(square, own, shape, (16, 64, 64))
    expected = resize_space(square["pos_embed_spatial"], (16, 16), (8, 32), UNIT)
    torch.testing.assert_close(resized["pos_embed_spatial"], expected)
    assert resized_positions(square, own, shape, (16, 32, 128)) == {}
    # A size that does not agree with the tokens says nothing.
    with pytest.raises(ValueError, match="16x16 or, as the model, 8x32"):
        resized_positions(square, own, shape, (16, 96, 96))
    other_shape, _ = video(64, 64)
    assert resized_positions(square, square, other_shape) == {}


def test_an_embedding_of_space_and_time_at_once_of_another_grid_is_refused():
    shape = geometry((4, 64, 128), q_pool=2, sep_pos_embed=False)
    own = {"pos_embed": embedding(2 * 16 * 32)}
    for size in (None, (4, 64, 128), (8, 64, 128)):
        assert resized_positions(own, own, shape, size) == {}
    with pytest.raises(ValueError, match="2x32x16 tokens, of space and time together.*has 2x16x32"):
        resized_positions(own, own, shape, (4, 128, 64))


def test_other_channels_are_left_to_the_caller():
    shape, own = video(64, 64)
    file = {"pos_embed_spatial": torch.ones(1, 24 * 24, 9), "pos_embed_temporal": torch.ones(8)}
    assert resized_positions(file, own, shape) == {}
