"""Histograms of gradients, against scikit-image; pixel targets are tested in test_mae.py."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import hog

from hiera_video.models.targets import HOGTarget
from tests.models.reference import make_video
from tests.models.small import tiny_mae


def reference(channel):
    """Of one channel of one frame: (rows, columns, bins)."""
    cells = {"pixels_per_cell": (8, 8), "cells_per_block": (1, 1), "block_norm": "L2"}
    return hog(channel.numpy(), orientations=9, **cells, feature_vector=False)[:, :, 0, 0]


def reference_patch(frame, row, column, rows=2, columns=2):
    """One patch of a frame (3, H, W): cells by channels by bins, flat."""
    cells = np.stack([reference(channel) for channel in frame], axis=2)  # (rows, columns, 3, 9)
    patch = cells[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
    return torch.from_numpy(patch.astype(np.float32)).flatten()


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_histograms_equal_those_of_scikit_image(rows, columns, few_levels, seed):
    shape = (2, 3, 8 * rows, 8 * columns)
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(shape, generator=generator)
    if few_levels:  # many equal neighbours: angles at the edges of bins, and no gradient
        frames = torch.randint(0, 4, shape, generator=generator) / 3
    histograms = HOGTarget((8, 8), None, 3).histograms(frames)
    expected = np.stack([[reference(channel) for channel in frame] for frame in frames])
    assert histograms.dtype == torch.float32
    all_cells = torch.ones(histograms.shape[:-1], dtype=torch.bool)
    clear = all_cells if few_levels else clear_cells(frames)
    expected = torch.from_numpy(expected).float()
    torch.testing.assert_close(histograms[clear], expected[clear], atol=2e-6, rtol=1e-5)
    assert clear.float().mean() > 0.8


def clear_cells(frames):
    """Cells without a pixel whose direction is so close to the edge of a bin that rounding decides.

    Steps of few levels lie on edges, too, but exactly, for us and for scikit-image.
    """
    down, right = torch.zeros(2, *frames.shape, dtype=torch.float64)
    down[..., 1:-1, :] = frames[..., 2:, :].double() - frames[..., :-2, :]
    right[..., 1:-1] = frames[..., 2:].double() - frames[..., :-2]
    bins = torch.atan2(down, right) * 9 / math.pi
    close = ((bins - bins.round()).abs() < 1e-5) & (down != 0) & (right != 0)
    close = close.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))
    return ~close.any(dim=-1).any(dim=-2)


def test_directions_on_the_edges_of_bins():
    """A gradient to the left is one to the right; upwards is downwards; flat is nothing."""
    ramp = torch.arange(16.0).expand(16, 16)
    for frame, bin in ((ramp, 0), (-ramp, 0), (ramp.T, 4), (-ramp.T, 4)):
        histogram = HOGTarget((8, 8), None, 3).histograms(frame)
        expected = torch.zeros(9)
        expected[bin] = 1
        torch.testing.assert_close(histogram, expected.expand(2, 2, 9))
    assert HOGTarget((8, 8), None, 3).histograms(torch.ones(16, 16)).abs().max() == 0


def test_patches_of_a_video_are_of_the_first_frame_of_each_two():
    video = torch.randn(2, 3, 4, 48, 64, generator=torch.Generator().manual_seed(0))
    target = HOGTarget((16, 16), 2, 3)
    assert target.dim == 108
    where = torch.tensor([[0, 12 + 7, 23], [3, 11, 12]])  # of 2x3x4 patches
    patches = target(video, where)
    assert patches.shape == (2, 3, 108)
    for b, m in np.ndindex(2, 3):
        t, row, column = np.unravel_index(int(where[b, m]), (2, 3, 4))
        expected = reference_patch(video[b, :, 2 * t], row, column)
        torch.testing.assert_close(patches[b, m], expected, atol=2e-6, rtol=1e-5)


def test_patches_of_images():
    images = torch.randn(2, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    target = HOGTarget((16, 24), None, 3)
    assert target.dim == 2 * 3 * 27
    first, second = target(images, torch.tensor([[3], [1]]))[:, 0]
    torch.testing.assert_close(first, reference_patch(images[0], 1, 1, 2, 3), atol=2e-6, rtol=0)
    torch.testing.assert_close(second, reference_patch(images[1], 0, 1, 2, 3), atol=2e-6, rtol=0)


def test_a_masked_autoencoder_with_it():
    mae = tiny_mae(target="hog")
    video = make_video(mae, 2)
    out = mae(video, mask=torch.tensor([[0, 3, 5], [6, 2, 7]]))
    assert out.prediction.shape == out.target.shape == (2, 20, 108)
    with torch.autocast("cpu", torch.bfloat16):
        half = mae(video, mask=out.mask)
    assert half.prediction.dtype == torch.bfloat16
    assert torch.equal(half.target, out.target)  # float32 throughout
    with pytest.raises(ValueError, match="hog.* cannot be painted as a picture"):
        mae.reconstruct(video, out)


def test_cells_must_divide_a_patch():
    tiny_mae(target="hog", q_pool=1)  # patches of 8x8 pixels
    with pytest.raises(ValueError, match="whole cells of 8x8 pixels, not of 4x4"):
        tiny_mae(target="hog", q_pool=0)


def test_it_compiles_into_one_graph():
    mae = tiny_mae(target="hog", embed_dim=8, stages=(1, 1), q_pool=1)
    kept, video = torch.tensor([[0, 3, 5], [6, 2, 7]]), make_video(mae, 2)
    torch.compiler.reset()
    compiled = torch.compile(mae, backend="aot_eager", fullgraph=True)
    out = compiled(video, mask=kept)
    out.loss.backward()
    torch.testing.assert_close(out, mae(video, mask=kept), rtol=1e-3, atol=1e-5)
