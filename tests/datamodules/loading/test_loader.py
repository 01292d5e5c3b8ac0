import hashlib
import json

import pytest

from datamodules.clips.items import NothingToLearn
from datamodules.errors import DatasetError, StorageFailure, TooManyBadVideos
from datamodules.loading.bad_videos import Failure
from datamodules.loading.loader import Loader
from datamodules.loading.outage import Outage
from datamodules.loading.sampler import EpochSampler
from tests.datamodules.loading.numbers import Numbers


def make_loader(length=23, batch_size=3, workers=0, faults=None, repeats=1, loader=None, **kw):
    sampler = EpochSampler(length, **{"training": True, "seed": 5, **kw})
    dataset = Numbers(length, faults, repeats)
    return Loader(dataset, sampler, batch_size, num_workers=workers, **(loader or {}))


def ids(batches):
    return [batch["video_id"].tolist() for batch in batches]


def seeds(batches):
    return [batch["seed"].tolist() for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_loader_goes_on_with_the_very_next_batch(workers):
    unbroken = make_loader()
    expected = []
    for epoch in range(3):
        unbroken.sampler.set_epoch(epoch)
        expected += list(unbroken)
    per_epoch = len(unbroken)
    for used in (1, per_epoch - 1, per_epoch, per_epoch + 2):
        first = make_loader(workers=workers)
        epoch, inside = divmod(used - 1, per_epoch)
        for e in range(epoch + 1):
            first.sampler.set_epoch(e)
            batches = iter(first)
            for _ in range(per_epoch if e < epoch else inside + 1):
                next(batches)
        state = first.state_dict()
        second = make_loader(workers=workers)
        second.load_state_dict(state)
        rest = list(second)
        assert ids(rest) == ids(expected[used : used + len(rest)])
        assert seeds(rest) == seeds(expected[used : used + len(rest)])
        assert len(rest) == per_epoch - used % per_epoch


def test_the_rest_of_an_epoch_is_seen_once_by_another_number_of_ranks():
    length, state = 24, None
    seen = []
    for rank in range(2):
        loader = make_loader(length, 3, rank=rank, world_size=2)
        batches = iter(loader)
        for _ in range(2):
            seen += next(batches)["video_id"].tolist()
        state = loader.state_dict()
    for rank in range(4):
        loader = make_loader(length, 1, rank=rank, world_size=4)
        loader.load_state_dict(state)
        seen += sum(ids(loader), [])
    assert sorted(seen) == list(range(length))


def digest(loader):
    """SHA-256 of everything in the batches."""
    batches = [{k: v.tolist() for k, v in b.items() if k != "failed"} for b in loader]
    return hashlib.sha256(json.dumps(batches, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("faults", [{}, {3: "error", 4: "error", 11: "error"}])
def test_batches_do_not_depend_on_the_number_of_workers(faults):
    options = {"faults": faults, "repeats": 2, "loader": {"max_bad_share": 0.5}}
    digests = {digest(make_loader(workers=n, **options)) for n in (0, 1, 4)}
    assert len(digests) == 1
    assert digests != {digest(make_loader(**{**options, "seed": 6}))}


def test_evaluation_can_be_repeated_and_broken_off():
    loader = make_loader(7, 2, training=False)
    everything = ids(loader)
    next(iter(loader))
    assert ids(loader) == everything == [[0, 1], [2, 3], [4, 5], [6]]


def test_too_few_videos_are_an_error():
    with pytest.raises(ValueError, match="lower data.batch_size"):
        make_loader(4, 5)


def test_a_loader_that_goes_on_with_other_videos_says_so(caplog):
    state = make_loader(23).state_dict()
    make_loader(23).load_state_dict(state)
    assert not caplog.records
    for rank in (1, 0):  # only the first process
        make_loader(40, rank=rank, world_size=2).load_state_dict(state)
    assert caplog.messages == ["resumed with 40 training videos; there were 23 of them before"]
    make_loader(40).load_state_dict({"epoch": 1, "used": 3})  # of an earlier version


class Squeezed(Numbers):
    """Items that are less wide than the data set says; written to a batch, they would repeat."""

    def __init__(self, length):
        super().__init__(length)
        self.item_shape = (1, 1, 1, 2, 3)

    def item(self, epoch, index, clips):
        item = super().item(epoch, index, clips)
        return item | {"video": item["video"][:, :, :, :1]}


@pytest.mark.parametrize("workers", [0, 2])
def test_an_item_of_another_shape_is_an_error(workers):
    loader = Loader(Squeezed(8), EpochSampler(8, training=True), 2, num_workers=workers)
    with pytest.raises(ValueError, match=r"at most \d clips of \(1, 1, 2, 3\).* \(1, 1, 1, 1, 3\)"):
        next(iter(loader))


def test_there_may_be_more_workers_than_videos():
    assert sum(ids(make_loader(3, 3, workers=8)), []) == sum(ids(make_loader(3, 3)), [])


@pytest.mark.parametrize("faults", [{0: "error"}, {0: "error", 1: "error", 2: "error", 3: "error"}])
def test_a_training_without_a_clip_stops(faults):
    loader = Loader(Barren(4, faults), EpochSampler(4, training=True), 1, max_bad_share=0.99)
    message = "none of 4 training items has anything to learn from"
    with pytest.raises(DatasetError, match=f"{message}, and .* damaged data"):
        next(iter(loader))


class Barren(Numbers):
    """Items that cannot be decoded or have nothing to learn from."""

    def item(self, epoch, index, clips):
        if clips:
            raise NothingToLearn
        return super().item(epoch, index, clips)


def evaluated(faults, length=300, share=0.01, **kwargs):
    """The videos that were listed as failed in an evaluation."""
    loader = make_loader(length, 10, faults=faults, training=False, loader={"max_bad_share": share})
    return [failure.video_id for batch in loader for failure in batch["failed"]]


def test_an_evaluation_counts_a_few_files_that_have_gone_as_wrong():
    assert evaluated(dict.fromkeys((3, 50, 299), "gone")) == [3, 50, 299]
    assert evaluated(dict.fromkeys(range(20), "error")) == [*range(20)]
    assert evaluated(dict.fromkeys(range(20), "gone"), share=1) == [*range(20)]


@pytest.mark.parametrize(
    ("gone", "length", "share", "last"),
    [((3, 50, 70, 299), 300, 0.01, 299), (range(290, 300), 300, 0.1, 297), ((0,), 1, 0.01, 0)],
)
def test_an_evaluation_ends_where_the_storage_fails(gone, length, share, last):
    expected = rf"/videos/{last}\.mp4: No such file.*run the same command again"
    with pytest.raises(StorageFailure, match=expected) as error:
        evaluated(dict.fromkeys(gone, "gone"), length, share)
    assert error.value.exit_code == 1


def test_items_of_one_video_that_has_gone_are_no_outage():
    failures = [[Failure(i, 0, "No such file", unreadable=True)] for i in range(50)]
    outage = Outage(1, 100, lambda i: f"{i // 20}.mp4")
    for failed in failures[:20]:
        outage.count(failed)
    outage.count([])
    with pytest.raises(StorageFailure, match="21 of 100 items"):
        outage.count(failures[20])


def test_training_says_that_its_videos_cannot_be_read():
    for faults, error, message in (
        ({4: "gone", 7: "gone"}, StorageFailure, "2 videos of this epoch cannot be read"),
        ({4: "error", 7: "error", 9: "gone"}, TooManyBadVideos, "cannot be decoded"),
    ):
        loader = make_loader(faults=faults, loader={"max_bad_share": (len(faults) - 1) / 23})
        with pytest.raises(error, match=message):
            list(loader)
    assert len(list(make_loader(faults={4: "gone"}))) == 7
