import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hiera_video.augment.basic import Normalize, random_horizontal_flip
from hiera_video.augment.random import uniform

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


def test_flip_mirrors_whole_clips_whatever_else_is_in_the_batch():
    video = torch.randint(0, 256, (40, 3, 4, 5, 6), dtype=torch.uint8)
    seed = torch.arange(40)
    flipped = random_horizontal_flip(video, seed)
    same = (flipped == video).flatten(1).all(1)
    mirrored = (flipped == video.flip(-1)).flatten(1).all(1)
    assert (same | mirrored).all()
    assert 10 < mirrored.sum() < 30
    assert torch.equal(random_horizontal_flip(video[7:9], seed[7:9]), flipped[7:9])
    assert torch.equal(random_horizontal_flip(video, seed, 0.0), video)


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
