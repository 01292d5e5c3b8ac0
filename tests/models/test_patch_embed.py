"""The ways to embed patches compute the same convolution."""

import pytest
import torch

from hiera_video.models.blocks import PatchEmbed
from hiera_video.models.token_order import join_units

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
    few = torch.tensor([[1, 4], [0, 6]])
    index = few[(..., *[None] * (units.ndim - 2))].expand(-1, -1, *units.shape[2:])
    torch.testing.assert_close(embed.units(video, few, grid), units.gather(1, index))
