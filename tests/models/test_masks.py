import itertools

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hiera_video.augment.basic import MASK_STREAM
from hiera_video.augment.random import uniform
from hiera_video.models.masks import (
    MASKS,
    NUM_CUBOIDS,
    kept_units,
    num_kept,
    num_noise,
    random_units,
    running_cell,
)
from tests.models.small import tiny_mae

GRIDS = st.tuples(st.integers(1, 5), st.integers(1, 6), st.integers(1, 6))


def draw(mask, grid, ratio, seeds):
    """Noise and kept units of samples, as the task draws them."""
    noise = uniform(torch.as_tensor(seeds), num_noise(mask, grid), MASK_STREAM)
    return noise, kept_units(mask, noise, grid, num_kept(mask, grid, ratio))


def hidden(kept, grid):
    """bool (B, *grid)."""
    mask = torch.ones(len(kept), torch.Size(grid).numel(), dtype=torch.bool)
    return mask.scatter(1, kept, False).view(-1, *grid)


def cuboids(noise, grid):
    """The cuboids of a sample one by one, as sets of units (t, y, x)."""
    for n in range(NUM_CUBOIDS):
        ranges = []
        for axis, length in enumerate(grid):
            least, most = (1, length) if axis == 0 else (-(-length // 4), -(-length * 3 // 4))
            size = least + int(float(noise[3 * n + axis]) * (most - least + 1))
            places = length + size - 1
            start = int(float(noise[3 * NUM_CUBOIDS + 3 * n + axis]) * places) - size + 1
            ranges.append(range(max(0, start), min(length, start + size)))
        yield set(itertools.product(*ranges))


@settings(max_examples=60)
@given(st.sampled_from(MASKS), GRIDS, st.floats(0.05, 0.95), st.integers(0, 2**62))
def test_counts_are_exact_and_indices_ascend(mask, grid, ratio, seed):
    units, steps = torch.Size(grid).numel(), grid[0] if mask == "tube" else 1
    keep = int(units // steps * (1 - ratio))
    assume(0 < keep < units // steps)
    assert num_kept(mask, grid, ratio) == keep * steps
    _, kept = draw(mask, grid, ratio, [seed, seed + 1, 7])
    assert kept.shape == (3, keep * steps)
    assert kept.dtype == torch.int64
    assert (kept.diff(dim=1) > 0).all()
    assert kept.min() >= 0
    assert kept.max() < units


@settings(max_examples=30)
@given(GRIDS, st.floats(0.05, 0.95), st.integers(0, 2**62))
def test_tubes_hide_the_same_places_in_every_step(grid, ratio, seed):
    assume(0 < int(grid[1] * grid[2] * (1 - ratio)) < grid[1] * grid[2])
    noise, kept = draw("tube", grid, ratio, [seed, 0])
    mask = hidden(kept, grid)
    assert torch.equal(mask, mask[:, :1].expand_as(mask))
    places = num_kept("tube", grid, ratio) // grid[0]
    for row, plane in zip(noise, mask[:, 0].flatten(1), strict=True):
        least = sorted(range(len(row)), key=lambda place: float(row[place]))[:places]
        assert set(least) == set((~plane).nonzero().flatten().tolist())


@settings(max_examples=30)
@given(GRIDS, st.floats(0.05, 0.95), st.integers(0, 2**62))
def test_blocks_are_cuboids_up_to_the_last(grid, ratio, seed):
    units = torch.Size(grid).numel()
    assume(0 < int(units * (1 - ratio)) < units)
    noise, kept = draw("block", grid, ratio, [seed])
    places = itertools.product(*map(range, grid))
    order = dict(zip(places, noise[0, -units:].tolist(), strict=True))
    left, expected = units - kept.shape[1], set()
    for cuboid in [*cuboids(noise[0], grid), set(order)]:  # what none covers comes last
        new = cuboid - expected
        expected |= set(sorted(new, key=order.__getitem__)[: left - len(expected)])
    assert set(map(tuple, hidden(kept, grid)[0].nonzero().tolist())) == expected


def test_random_is_the_least_noise():
    noise = torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.8, 0.1, 0.7]])
    assert random_units(noise, 2).tolist() == [[1, 3], [0, 2]]
    assert torch.equal(kept_units("random", noise, (1, 2, 2), 2), random_units(noise, 2))
    # Frozen: the masks of runs that were begun with an earlier version.
    _, kept = draw("random", (4, 2, 2), 0.7, [0, 1, 2**40])
    assert kept.tolist() == [[4, 8, 13, 15], [3, 5, 8, 13], [1, 6, 7, 12]]


@pytest.mark.parametrize("mask", MASKS)
def test_each_unit_is_kept_about_as_often(mask):
    grid = (4, 5, 6)
    _, kept = draw(mask, grid, 0.6, torch.arange(3000))
    share = 1 - hidden(kept, grid).double().mean(0)
    assert (share - kept.shape[1] / 120).abs().max() < 0.05


@pytest.mark.parametrize("mask", MASKS)
def test_a_mask_is_a_function_of_the_samples_seed(mask):
    grid, seeds = (4, 5, 6), [3, 1, 4, 1, 5, 9, 2, 6]
    _, together = draw(mask, grid, 0.9, seeds)
    for seed, kept in zip(seeds, together, strict=True):
        assert torch.equal(draw(mask, grid, 0.9, [seed])[1][0], kept)
    assert len(together.unique(dim=0)) == 7


def test_images_have_one_step():
    for mask in MASKS:
        _, kept = draw(mask, (7, 7), 0.6, [1, 2])
        assert kept.shape == (2, 19)
    assert torch.equal(draw("tube", (7, 7), 0.6, [5])[1], draw("random", (7, 7), 0.6, [5])[1])


def test_compiles_into_one_graph():
    noise = torch.rand(2, num_noise("block", (4, 5, 6)))
    torch.compiler.reset()
    compiled = torch.compile(kept_units, backend="aot_eager", fullgraph=True)
    kept = compiled("block", noise, (4, 5, 6), 12)
    assert torch.equal(kept, kept_units("block", noise, (4, 5, 6), 12))


def test_wrong_masks():
    with pytest.raises(ValueError, match="mask must be one of random, tube, block, not 'tubes'"):
        tiny_mae().num_kept(0.5, "tubes")
    with pytest.raises(ValueError, match="mask must be one of"):
        num_noise("tubes", (2, 2, 2))
    # 8 units of 2 steps keep 1 of 8 at random, but none of 4 places.
    assert tiny_mae().num_kept(0.8) == 1
    with pytest.raises(ValueError, match="0 of 4 mask units would be kept"):
        tiny_mae().num_kept(0.8, "tube")
    assert tiny_mae().num_kept(0.7, "tube") == 2


@pytest.mark.parametrize("kept_share", [0.25, 0.5, 0.75])
def test_a_running_cell_moves_on_in_time(kept_share):
    """The queue of VideoMAE V2: as many of each 2x2 cell, one place further in each step."""
    steps, rows, columns = grid = (6, 4, 6)
    patches = steps * rows * columns
    noise = torch.rand(20, patches + 1)
    everything = torch.ones(20, patches, dtype=torch.bool)
    chosen = running_cell(everything, int(patches * kept_share), noise, grid)
    masks = torch.zeros(20, patches, dtype=torch.bool).scatter(1, chosen, True).view(20, *grid)
    cells = masks.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).permute(0, 1, 2, 4, 3, 5).flatten(4)
    queue = [place < 4 * kept_share for place in range(4)]
    beginnings = set()
    for sample in cells:
        turns = [t for t in range(4) if sample[0, 0, 0].tolist() == queue[t:] + queue[:t]]
        assert len(turns) == 1
        beginnings.add(turns[0])
        for step, of_step in enumerate(sample):
            turn = (turns[0] + step) % 4
            assert (of_step == torch.tensor(queue[turn:] + queue[:turn])).all()
    assert beginnings == {0, 1, 2, 3}


@settings(max_examples=40)
@given(GRIDS, st.integers(0, 2**62), st.data())
def test_a_running_cell_chooses_among_the_hidden(grid, seed, data):
    patches = torch.Size(grid).numel()
    num_hidden = data.draw(st.integers(1, patches))
    count = data.draw(st.integers(1, num_hidden))
    noise = uniform(torch.tensor([seed, 5]), patches + 1, MASK_STREAM)
    order = torch.rand(2, patches).argsort(dim=1)
    mask = order < num_hidden
    chosen = running_cell(mask, count, noise, grid)
    assert chosen.shape == (2, count)
    assert (chosen.diff(dim=1) > 0).all()
    assert mask.gather(1, chosen).all()
