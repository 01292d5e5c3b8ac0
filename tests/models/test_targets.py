"""Histograms of gradients, against MaskFeat's; pixel targets are tested in test_mae.py."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.cbook import get_sample_data
from numpy.lib.stride_tricks import sliding_window_view
from PIL import Image

from hiera_video.models.targets import HOGTarget
from tests.models.reference import make_video
from tests.models.small import tiny_mae

SOBEL = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]])


def gradients(channel):
    """Of one channel (H, W), mirrored at its border: horizontal and vertical, float64."""
    windows = sliding_window_view(np.pad(channel.astype(float), 1, mode="reflect"), (3, 3))
    return (windows * SOBEL).sum((2, 3)), (windows * SOBEL.T).sum((2, 3))


def reference(frame):
    """What MaskFeat's HOGLayerC(nbins=9, pool=8) makes of (C, H, W): (C, 9, rows, columns)."""
    rows, columns = np.indices(frame.shape[1:]) // 8
    histograms = np.zeros((len(frame), 9, rows.max() + 1, columns.max() + 1))
    for histogram, channel in zip(histograms, frame, strict=True):
        x, y = gradients(channel)
        bins = np.floor(np.arctan2(x, y) / np.pi * 9).astype(int) % 9
        np.add.at(histogram, (bins, rows, columns), np.hypot(x, y))
    return histograms / np.maximum(np.linalg.norm(histograms, axis=1, keepdims=True), 1e-12)


def reference_patch(frame, row, column, rows=2, columns=2):
    """One patch of a frame (3, H, W): channels by bins by cells, flat."""
    patch = reference(frame.numpy())[
        :, :, row * rows : (row + 1) * rows, column * columns : (column + 1) * columns
    ]
    return torch.from_numpy(patch.astype(np.float32)).flatten()


def photograph():
    """Pixels of a photograph, float32 (3, 224, 224) in 0, 1, ..., 255."""
    with Image.open(get_sample_data("grace_hopper.jpg", asfileobj=False)) as image:
        pixels = np.asarray(image.crop((100, 50, 324, 274)), np.float32)
    return pixels.transpose(2, 0, 1)


def test_a_photograph_has_the_histograms_of_maskfeat():
    pixels = photograph()
    expected = reference(pixels)
    histograms = HOGTarget((16, 16), None, 3).histograms(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(histograms, expected, atol=1e-6)
    cosine = (histograms * expected).sum(1)
    assert cosine.min() > 1 - 1e-6
    # As the network sees it. Where a gradient lies on the edge of a bin, rounding decides, as it
    # does in MaskFeat's code.
    normalised = torch.from_numpy((pixels / 255 - 0.45) / 0.225)
    cosine = (HOGTarget((16, 16), None, 3).histograms(normalised).numpy() * expected).sum(1)
    assert np.median(cosine) > 1 - 1e-6
    assert cosine.mean() > 0.9995


@settings(max_examples=25)
@given(st.integers(1, 5), st.integers(1, 5), st.booleans(), st.integers(0, 99))
def test_histograms_equal_those_of_maskfeat(rows, columns, few_levels, seed):
    shape = (2, 3, 8 * rows, 8 * columns)
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(shape, generator=generator)
    if few_levels:  # many equal neighbours: angles at the edges of bins, and no gradient
        frames = torch.randint(0, 4, shape, generator=generator).float()
    histograms = HOGTarget((8, 8), None, 3).histograms(frames)
    expected = torch.from_numpy(np.stack([reference(frame) for frame in frames.numpy()])).float()
    assert histograms.dtype == torch.float32
    clear = torch.ones(2, 3, rows, columns, dtype=torch.bool) if few_levels else clear_cells(frames)
    histograms, expected = histograms.movedim(2, -1), expected.movedim(2, -1)
    torch.testing.assert_close(histograms[clear], expected[clear], atol=2e-6, rtol=1e-5)
    assert clear.float().mean() > 0.8


def clear_cells(frames):
    """Cells without a pixel whose direction is so close to the edge of a bin that rounding decides.

    Gradients of a few whole numbers are exact, for us and for the reference, and so is the
    horizontal 0 at a mirrored border.
    """
    x, y = np.array([[gradients(c) for c in frame] for frame in frames.numpy()]).transpose(
        2, 0, 1, 3, 4
    )
    bins = torch.from_numpy(np.arctan2(x, y) / np.pi * 9)
    close = ((bins - bins.round()).abs() < 1e-5) & torch.from_numpy(x != 0)
    close = close.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8))
    return ~close.any(dim=-1).any(dim=-2)


def test_directions_on_the_edges_of_bins():
    """A gradient to the left is one to the right; upwards is downwards; flat is nothing."""
    ramp = torch.arange(24.0).expand(24, 24)
    for frame, bin in ((ramp, 4), (-ramp, 4), (ramp.T, 0), (-ramp.T, 0)):
        histograms = HOGTarget((8, 8), None, 3).histograms(frame)
        expected = torch.zeros(9)
        expected[bin] = 1
        torch.testing.assert_close(histograms, expected[:, None, None].expand(9, 3, 3))
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
