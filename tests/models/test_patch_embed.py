"""The ways to embed patches compute the same convolution."""

import pytest
import torch

from hiera_video.models.patch_embed import PatchEmbed
from hiera_video.models.token_order import join_units
from tests.models.units import pixels_of_units

# Kernel, stride, padding; the first two are the published ones.
SHAPES = [
    ((3, 7, 7), (2, 4, 4), (1, 3, 3)),
    ((7, 7), (4, 4), (3, 3)),
    ((2, 4, 4), (2, 4, 4), (0, 0, 0)),
    ((3, 8, 5), (2, 4, 4), (1, 2, 1)),
    ((5, 7, 7), (2, 4, 4), (2, 3, 3)),  # wider than two strides
]


def embedding(shape):
    """An embedding, a video of 8 frames of 64x32 pixels or an image, and the convolution of it."""
    torch.manual_seed(0)
    embed = PatchEmbed(3, 6, *shape).double()
    video = torch.randn(2, 3, *(8, 64, 32)[-len(shape[0]) :], dtype=torch.float64)
    return embed, video, embed.proj(video)


@pytest.mark.parametrize("shape", SHAPES)
def test_cells_of_pixels_give_the_convolution(shape):
    embed, video, expected = embedding(shape)
    tokens = embed(video)  # in float64 as on a GPU
    torch.testing.assert_close(tokens, expected.flatten(2).transpose(1, 2))
    (gradient,) = torch.autograd.grad(tokens.square().sum(), embed.proj.weight)
    (other,) = torch.autograd.grad(expected.square().sum(), embed.proj.weight)
    torch.testing.assert_close(gradient, other)
    single = embed.float()
    torch.testing.assert_close(single(video.float()), tokens.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", SHAPES)
def test_units_alone_have_the_tokens_of_the_convolution(shape):
    embed, video, expected = embedding(shape)
    grid = (2, 4, 2)[-len(shape[0]) :]
    every = torch.arange(2 ** len(grid) * 2).repeat(2, 1)
    units = embed.units(video, every, grid)  # (B, U, t, h, w, C)
    torch.testing.assert_close(join_units(units, grid), expected.movedim(1, -1))
    few = torch.tensor([[1, 4], [6, 0]])
    seen = pixels_of_units(torch.zeros(2, len(every[0])).scatter(1, few, 1) > 0, grid, video)
    expected = embed.proj(video * seen).movedim(1, -1)  # (B, T', H', W', C)
    junk = torch.where(seen, video, torch.nan)  # must not be seen
    tokens = embed.units(junk, few, grid)
    assert tokens.shape == (2, 2, *units.shape[2:])
    for sample, row in enumerate(few.tolist()):
        for place, unit in enumerate(row):
            only = pixels_of_units(
                torch.arange(len(every[0]))[None] == unit, grid, expected[:1, None]
            )
            unit_tokens = expected[sample][only[0, 0]]
            torch.testing.assert_close(tokens[sample, place].flatten(0, -2), unit_tokens)
