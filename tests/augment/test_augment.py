import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiera_video.augment import basic
from hiera_video.augment.basic import Normalize
from hiera_video.augment.random import normal, uniform

MASK = 2**64 - 1
seeds = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6)


def splitmix64(state):
    """Steele, Lea, Flood (2014), with Python's own integers."""
    z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & MASK
    return z ^ (z >> 31)


def reference(seed, count, stream):
    golden = 0x9E3779B97F4A7C15
    start = splitmix64((seed + golden * (stream + 1)) & MASK)
    bits = [splitmix64((start + golden * i) & MASK) for i in range(1, count + 1)]
    return [(b >> 40) * 2.0**-24 for b in bits]


@given(seeds, st.integers(0, 20), st.integers(0, 5))
def test_uniform_is_splitmix64(values, count, stream):
    drawn = uniform(torch.tensor(values), count, stream)
    assert drawn.dtype == torch.float32
    assert drawn.tolist() == [reference(seed, count, stream) for seed in values]


def test_uniform_numbers_are_uniform_and_independent():
    drawn = uniform(torch.arange(2000), 50, stream=0).numpy()
    assert drawn.min() >= 0
    assert drawn.max() < 1
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert np.abs(counts / drawn.size * 20 - 1).max() < 0.05
    neighbours = np.corrcoef(drawn[:-1].ravel(), drawn[1:].ravel())[0, 1]
    streams = np.corrcoef(drawn.ravel(), uniform(torch.arange(2000), 50, 1).numpy().ravel())[0, 1]
    assert abs(neighbours) < 0.02
    assert abs(streams) < 0.02


@given(seeds, st.integers(0, 9), st.integers(0, 5))
def test_normal_is_box_muller(values, count, stream):
    drawn = normal(torch.tensor(values), count, stream)
    assert drawn.dtype == torch.float32
    assert drawn.shape == (len(values), count)
    half = (count + 1) // 2
    for row, seed in zip(drawn.tolist(), values, strict=True):
        numbers = np.array(reference(seed, 2 * half, stream))
        radius = np.sqrt(-2 * np.log(1 - numbers[:half]))
        z = radius * np.exp(2j * np.pi * numbers[half:])
        assert np.allclose(row, np.concatenate([z.real, z.imag])[:count], atol=1e-5)


def test_normal_numbers_are_normal():
    drawn = normal(torch.arange(2000), 51, stream=0).double()
    assert drawn.isfinite().all()
    moments = [drawn.mean(), drawn.var(), (drawn**3).mean(), (drawn**4).mean()]
    assert np.allclose(moments, [0, 1, 0, 3], atol=0.06)
    assert np.abs(np.corrcoef(drawn.T.numpy()) - np.eye(51)).max() < 0.1


def test_every_use_has_its_own_stream():
    streams = [value for name, value in vars(basic).items() if name.endswith("_STREAM")]
    assert len(streams) >= 7
    assert len(set(streams)) == len(streams)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5, 6), (2, 3, 5, 6)])
def test_normalize_and_back(shape):
    normalize = Normalize()
    video = torch.randint(0, 256, shape, dtype=torch.uint8)
    out = normalize(video)
    assert out.dtype == torch.float32
    assert normalize(
        video.to(memory_format=torch.channels_last_3d) if video.ndim == 5 else video
    ).is_contiguous()
    torch.testing.assert_close(out, (video.float() / 255 - 0.45) / 0.225)
    assert torch.equal(normalize.invert(out), video)
    assert not normalize.state_dict()  # not part of a checkpoint
