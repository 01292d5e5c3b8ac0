import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from hiera_video.models.token_order import join_units, pool, reroll, unroll, windows
from tests.allocations import most_allocated

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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_maxima_share_the_gradient_of_pooling(dtype):
    """As those of `amax` do; bfloat16 has many, and 300 of zero are more than a byte counts."""
    generator = torch.Generator().manual_seed(0)
    for x, stride in (
        (torch.randn(2, 3, 32, 2, 5, generator=generator).to(dtype), 4),
        (torch.zeros(1, 1, 600, 2, dtype=dtype), 300),
    ):
        x.requires_grad_()
        expected = x.unflatten(2, (stride, -1)).amax(2)
        grad = torch.randn(expected.shape, generator=generator).to(dtype)
        out = pool(x, stride)
        assert torch.equal(out, expected)
        (a,), (b,) = (torch.autograd.grad(y, x, grad) for y in (out, expected))
        assert torch.equal(a, b)


def test_pooling_counts_equal_maxima_in_few_bytes(tmp_path):
    """Where `amax` alone takes 8 bytes for each number, more than all tensors here have."""
    x = torch.randn(2, 64, 64, 96).bfloat16().requires_grad_()
    grad = torch.randn(2, 64, 16, 96).bfloat16()

    def peak(pool):
        return most_allocated(lambda: torch.autograd.grad(pool(x), x, grad), tmp_path)

    amax = peak(lambda x: x.unflatten(2, (4, -1)).amax(2))
    assert peak(lambda x: pool(x, 4)) < amax - 5 * x.numel()


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


@settings(max_examples=30)
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
