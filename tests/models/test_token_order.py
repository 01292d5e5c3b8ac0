import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video.models.token_order import join_units, pool, reroll, unroll, windows

VIDEO = ((2, 3, 2), ((1, 2, 2), (1, 2, 2), (1, 2, 2), (1, 1, 1)))
IMAGE = ((3, 2), ((2, 2), (2, 2), (1, 1)))
UNEVEN = ((2, 1, 3), ((2, 1, 3), (1, 2, 2), (2, 1, 1)))
LAYOUTS = pytest.mark.parametrize(("grid", "levels"), [VIDEO, IMAGE, UNEVEN])


def raster(grid, levels, channels=3, batch=2):
    """Tokens in raster order and the size of their grid."""
    unit = [math.prod(level[a] for level in levels) for a in range(len(grid))]
    size = [n * u for n, u in zip(grid, unit, strict=True)]
    generator = torch.Generator().manual_seed(0)
    return torch.randn(batch, math.prod(size), channels, generator=generator), size


def place(coordinates, grid, levels):
    """Unit and place in it of a token, by counting digits: the first level is the fastest."""
    unit_index, digits = 0, [[] for _ in levels]
    rest = list(coordinates)
    for k, level in enumerate(levels):
        digits[k] = [c % s for c, s in zip(rest, level, strict=True)]
        rest = [c // s for c, s in zip(rest, level, strict=True)]
    for c, n in zip(rest, grid, strict=True):
        unit_index = unit_index * n + c
    inside = 0
    for digit, level in zip(digits, levels, strict=True):
        for d, s in zip(digit, level, strict=True):
            inside = inside * s + d
    return unit_index, inside


@LAYOUTS
def test_unroll_puts_each_token_where_counting_says(grid, levels):
    x, size = raster(grid, levels)
    units = unroll(x, grid, levels)
    for i, coordinates in enumerate(itertools.product(*map(range, size))):
        unit, inside = place(coordinates, grid, levels)
        assert torch.equal(units[:, unit, inside], x[:, i])


@LAYOUTS
def test_pooling_is_max_pooling(grid, levels):
    """One level after another, bit for bit."""
    x, size = raster(grid, levels)
    units = unroll(x, grid, levels)
    volume = x.view(len(x), *size, -1).movedim(-1, 1)  # (B, C, T, H, W)
    max_pool = F.max_pool3d if len(grid) == 3 else F.max_pool2d
    for k, level in enumerate(levels):
        volume = max_pool(volume, level)
        units = pool(units, math.prod(level))
        rest = levels[k + 1 :] or [(1,) * len(grid)]
        assert torch.equal(join_units(reroll(units, rest), grid), volume.movedim(1, -1))


@LAYOUTS
def test_reroll_undoes_unroll(grid, levels):
    x, size = raster(grid, levels)
    joined = join_units(reroll(unroll(x, grid, levels), levels), grid)
    assert torch.equal(joined, x.view(len(x), *size, -1))


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_reroll_undoes_unroll_for_any_layout(data):
    axes = data.draw(st.sampled_from([2, 3]))
    numbers = st.tuples(*[st.integers(1, 3)] * axes)
    grid = data.draw(numbers)
    levels = data.draw(st.lists(numbers, min_size=1, max_size=3))
    x, size = raster(grid, levels, channels=1, batch=1)
    joined = join_units(reroll(unroll(x, grid, levels), levels), grid)
    assert torch.equal(joined, x.view(1, *size, 1))


def test_units_can_be_left_out_before_rerolling():
    grid, levels = VIDEO
    x, _ = raster(grid, levels)
    units, kept = unroll(x, grid, levels), [1, 4, 11]
    assert torch.equal(reroll(units[:, kept], levels), reroll(units, levels)[:, kept])


def test_windows_are_views():
    x = torch.randn(2, 5, 4, 3, 8)  # (B, U, L, heads, channels)
    apart, together = windows(x, windowed=True), windows(x, windowed=False)
    assert apart.shape == (10, 3, 4, 8)
    assert together.shape == (2, 3, 20, 8)
    assert torch.equal(apart[7, 2, 1], x[1, 2, 1, 2])
    assert torch.equal(together[1, 2, 9], x[1, 2, 1, 2])
    assert apart.data_ptr() == together.data_ptr() == x.data_ptr()
