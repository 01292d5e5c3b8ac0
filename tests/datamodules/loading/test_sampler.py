from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datamodules.clips.sampling import sample_seed
from datamodules.loading.sampler import EpochSampler


@given(st.integers(7, 200), st.integers(1, 7), st.integers(0, 5))
def test_evaluation_sees_each_video_once_for_any_number_of_ranks(length, ranks, epoch):
    seen = Counter()
    for rank in range(ranks):
        sampler = EpochSampler(length, training=False, rank=rank, world_size=ranks)
        sampler.set_epoch(epoch)
        pairs = list(sampler)
        assert len(pairs) == len(sampler)
        assert all(e == 0 for e, _ in pairs)  # evaluation draws the same in every epoch
        seen.update(index for _, index in pairs)
    assert seen == Counter(range(length))


@given(st.integers(7, 200), st.integers(1, 7), st.integers(0, 5))
def test_training_ranks_get_equally_many_and_share_none(length, ranks, epoch):
    parts = []
    for rank in range(ranks):
        sampler = EpochSampler(length, training=True, seed=1, rank=rank, world_size=ranks)
        sampler.set_epoch(epoch)
        parts.append([index for _, index in sampler])
        assert len(parts[-1]) == len(sampler)
    assert len({len(part) for part in parts}) == 1
    assert len(set(sum(parts, []))) == length // ranks * ranks


def test_epochs_differ_and_repeat_for_the_same_seed():
    sampler = EpochSampler(50, training=True, seed=3)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert [i for _, i in first] != [i for _, i in second]
    assert sorted(i for _, i in first) == sorted(i for _, i in second)
    assert list(EpochSampler(50, training=True, seed=3)) == first
    assert list(EpochSampler(50, training=True, seed=4)) != first


def test_seeds_of_clips_do_not_collide():
    drawn = {
        sample_seed(seed, epoch, index, repeat)
        for seed in range(3)
        for epoch in range(5)
        for index in range(50)
        for repeat in range(4)
    }
    assert len(drawn) == 3 * 5 * 50 * 4
    assert all(0 <= s < 2**63 for s in drawn)


def test_ranks_stay_equal_when_a_rest_is_split_among_more_of_them():
    counts = set()
    for rank in range(4):
        sampler = EpochSampler(24, training=True, rank=rank, world_size=4)
        sampler.used = 6
        counts.add(len(list(sampler)))
    assert counts == {4}


@pytest.mark.parametrize("training", [True, False])
def test_fewer_videos_than_processes_are_an_error(training):
    with pytest.raises(ValueError, match="too few for 3 processes"):  # Lightning stops or hangs
        EpochSampler(2, training=training, world_size=3)
